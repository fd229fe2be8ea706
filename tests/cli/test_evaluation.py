"""`partition evaluate` and `partition predict`: the same on any number of stages."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from partition import build_module, load_config
from partition.cli import main
from partition.data.dataset import load

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def trained(small: str, capsys: Capture) -> str:
    assert main(["train", small, "--strategy", "accumulate-4", "--json"]) == 0
    capsys.readouterr()
    return small


def evaluated(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert main(["evaluate", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_evaluate_says_what_the_run_said_on_any_number_of_stages(trained: str, capsys: Capture) -> None:
    final = json.loads(Path("runs/small/summary.json").read_text())["final"]
    layouts = [("--stages", "1"), ("--stages", "3"), ("--strategy", "pipeline-4x4-gpipe"), ()]
    for stages, layout in zip((1, 3, 4, None), layouts, strict=True):
        found = evaluated(capsys, trained, *layout)
        assert stages in (None, found["num_stages"])
        assert (found["test_loss"], found["test_accuracy"]) == (final["test_loss"], final["test_accuracy"])
        assert (found["step"], found["num_examples"]) == (10, 16)


def test_evaluate_takes_any_checkpoint(trained: str, capsys: Capture) -> None:
    last = evaluated(capsys, trained)
    path = "runs/small/checkpoints/step-00000004"
    by_number, by_path = (evaluated(capsys, trained, "--checkpoint", which) for which in ("4", path))
    assert by_number == by_path
    assert by_number["test_loss"] != last["test_loss"]
    os.rename("runs/small", "elsewhere")
    assert evaluated(capsys, trained, "--checkpoint", "elsewhere")["test_loss"] == last["test_loss"]
    assert evaluated(capsys, trained, "--out", "elsewhere")["test_loss"] == last["test_loss"]


def test_evaluate_for_people(trained: str, capsys: Capture) -> None:
    assert main(["evaluate", trained]) == 0
    said = capsys.readouterr().out
    assert "step-00000010" in said
    assert "% on 16 held-out examples" in said


def test_the_optimizer_and_the_lists_of_the_planner_do_not_matter(trained: str, capsys: Capture) -> None:
    expected = evaluated(capsys, trained)["test_loss"]
    changes = ["optimizer={name: adam, lr: 0.1}", "planner.num_stages=2"]
    assert evaluated(capsys, trained, *changes, "--stages", "3")["test_loss"] == expected


def test_other_microbatches_serve_where_those_of_training_do_not_fit(small: str, capsys: Capture) -> None:
    """The whole minibatch was trained at once; on devices of 6,000 bytes only portions of it pass through."""
    assert main(["train", small, "planner.num_microbatches=1", "--strategy", "whole", "--json"]) == 0
    capsys.readouterr()
    tight = ["cluster.devices.memory=6000 B", "--stages", "1"]
    found = evaluated(capsys, small, *tight)
    assert found["candidate"].startswith("accumulate-")
    assert found["test_loss"] == pytest.approx(evaluated(capsys, small, "--stages", "1")["test_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["model.activation=relu"], 5, "model.activation is gelu in the checkpoint and relu"),
        (["precision.compute=float64"], 5, "precision."),
        (["training.seed=1"], 5, "training.seed is 0 in the checkpoint and 1"),
        (["--stages", "9"], 3, "--stages 9: no such layout"),
        (["--stages", "0"], 3, "--stages 0: no such layout"),
        (["--strategy", "x"], 3, "--strategy x: no such layout"),
        (["--stages", "1", "--strategy", "whole"], 2, "both say where to run"),
        (["--checkpoint", "3"], 2, "there is no step-00000003"),
        (["--out", "nowhere"], 2, "nowhere/checkpoints: there are no checkpoints; `partition train` saves one"),
    ],
)
def test_what_does_not_match(trained: str, capsys: Capture, arguments: list[str], code: int, message: str) -> None:
    assert main(["evaluate", trained, *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_damage_is_exit_code_5(trained: str, capsys: Capture) -> None:
    path = Path("runs/small/checkpoints/step-00000010/layer-00002.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["evaluate", trained]) == 5
    assert "layer-00002.safetensors: is damaged:" in capsys.readouterr().err


def test_predict_is_what_plain_torch_says_of_the_exported_parameters(trained: str) -> None:
    """Ten rows and a half of a microbatch, on every number of stages."""
    x = np.random.default_rng(0).normal(size=(63, 12)).astype(np.float32)
    np.save("x.npy", x)
    assert main(["checkpoint", "export", "runs/small", "--out-file", "model.safetensors"]) == 0
    plain = build_module(load_config(trained).model, seed=1).to_torch()
    plain.load_state_dict(safetensors.torch.load_file("model.safetensors"))
    with torch.no_grad():
        expected = plain(torch.from_numpy(x)).numpy()
    for stages in (1, 2, 4):
        out = f"out/{stages}.npy"
        assert main(["predict", trained, "--input", "x.npy", "--out-file", out, "--stages", str(stages)]) == 0
        found = np.load(out, allow_pickle=False)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in Path("out").iterdir()) == ["1.npy", "2.npy", "4.npy"]


def test_predict_takes_the_examples_held_out_and_says_their_classes(trained: str, capsys: Capture) -> None:
    assert main(["predict", trained, "--out-file", "logits.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_rows"] == 16
    assert main(["predict", trained, "--out-file", "classes.npy", "--classes"]) == 0
    logits, classes = np.load("logits.npy"), np.load("classes.npy")
    assert logits.shape == (16, 5)
    assert (classes.dtype, classes.tolist()) == (np.int64, logits.argmax(axis=1).tolist())
    capsys.readouterr()
    accuracy = float((classes == load(load_config(trained)).test_y).mean())
    assert evaluated(capsys, trained)["test_accuracy"] == accuracy


@pytest.mark.parametrize("dtype", ["float64", "int16", "uint8", "bool", ">f4"])
def test_inputs_of_any_kind_of_number_are_converted(trained: str, dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 2, size=(5, 12))
    for name, array in (("a", x.astype(np.float32)), ("b", np.asfortranarray(x.astype(dtype)))):
        np.save(f"{name}.npy", array)
        assert main(["predict", trained, "--input", f"{name}.npy", "--out-file", f"{name}.out.npy"]) == 0
    assert np.array_equal(np.load("a.out.npy"), np.load("b.out.npy"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((3, 11)), r"is (3, 11) of float64, expected (N, 12) real numbers"),
        (np.zeros(12), "is (12,) of float64"),
        (np.zeros((0, 12)), "has no rows"),
        (np.zeros((3, 12), dtype=complex), "of complex128"),
        (np.array([{}]), "is no .npy file of numbers"),
        (b"garbage", "is no .npy file of numbers"),
        (b"", "is no .npy file of numbers"),
        (b"\x93NUMPY\x01\x00\x08\x00{'a': 1", "is no .npy file of numbers"),
        (None, "cannot be read"),
    ],
)
def test_inputs_that_are_none(trained: str, capsys: Capture, content: Any, message: str) -> None:
    if isinstance(content, bytes):
        Path("x.npy").write_bytes(content)
    elif content is not None:
        np.save("x.npy", content, allow_pickle=True)
    assert main(["predict", trained, "--input", "x.npy", "--out-file", "out.npy"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("partition: --input x.npy: ")
    assert message in error
    assert not Path("out.npy").exists()


def test_an_archive_of_arrays_is_none_either(trained: str, capsys: Capture) -> None:
    np.savez("x.npz", x=np.zeros((3, 12)))
    assert main(["predict", trained, "--input", "x.npz", "--out-file", "out.npy"]) == 2
    assert "is an archive, expected (N, 12)" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(trained: str, capsys: Capture) -> None:
    Path("file").touch()
    assert main(["predict", trained, "--out-file", "file/out.npy"]) == 2
    assert "--out-file file/out.npy: cannot be written" in capsys.readouterr().err


def test_classes_are_for_classification(trained: str, capsys: Capture) -> None:
    assert main(["predict", trained, "model.loss=mse", "--out-file", "out.npy", "--classes"]) == 2
    assert "--classes: model.loss is mse" in capsys.readouterr().err
