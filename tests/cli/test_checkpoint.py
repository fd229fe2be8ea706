"""`partition checkpoint`: what there is, whether it is sound, and other forms of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from partition.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(small: str, capsys: Capture) -> Path:
    """A run that saved after steps 4, 8 and 10."""
    assert main(["train", small, "--out", "run", "--json"]) == 0
    capsys.readouterr()
    return Path("run")


def document(capsys: Capture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_ls_lists_by_step_and_marks_the_latest(run: Path, capsys: Capture) -> None:
    for place in (run, run / "checkpoints"):
        assert main(["checkpoint", "ls", str(place)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[2:]] == ["step-00000004", "step-00000008", "step-00000010"]
        assert ["<- latest" in line for line in lines[2:]] == [False, False, True]
    assert main(["checkpoint", "ls", str(run), "--json"]) == 0
    found = document(capsys)
    assert (found["schema_version"], found["latest"]) == (1, "step-00000010")
    assert [(one["step"], one["epoch"], one["minibatch"]) for one in found["checkpoints"]] == [
        (4, 1, 1), (8, 2, 2), (10, 3, 1),
    ]  # fmt: skip
    assert all(one["problem"] is None and one["num_layers"] == 4 for one in found["checkpoints"])


def test_ls_lists_what_is_damaged_too(run: Path, capsys: Capture) -> None:
    (run / "checkpoints" / "step-00000008" / "checkpoint.json").write_text("{")
    assert main(["checkpoint", "ls", str(run)]) == 0
    said = capsys.readouterr().out
    assert "damaged" in said.splitlines()[3]
    assert said.splitlines()[-1].endswith("no JSON; take another checkpoint")


@pytest.mark.parametrize(
    ("content", "problem"), [("?", "latest: is damaged"), ("step-00000099", "names step-00000099, which is not there")]
)
def test_ls_lists_though_latest_names_nothing(run: Path, capsys: Capture, content: str, problem: str) -> None:
    (run / "checkpoints" / "latest").write_text(content)
    assert main(["checkpoint", "ls", str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6
    assert problem in said[-1]
    assert main(["checkpoint", "ls", str(run), "--json"]) == 0
    assert problem in document(capsys)["problem"]


def test_ls_of_nothing(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["checkpoint", "ls", str(tmp_path)]) == 0
    assert "there are no checkpoints" in capsys.readouterr().out
    assert main(["checkpoint", "ls", "nowhere"]) == 2
    assert main(["checkpoint", "ls", str(run), "extra"]) == 2
    assert "extra: is not an option of this verb" in capsys.readouterr().err


def test_verify_passes_what_is_sound(run: Path, capsys: Capture) -> None:
    assert main(["checkpoint", "verify", str(run)]) == 0
    assert "step-00000010: 4 files" in capsys.readouterr().out
    assert main(["checkpoint", "verify", str(run / "checkpoints" / "step-00000004"), "--json"]) == 0
    found = document(capsys)
    assert (found["step"], found["num_files"], found["problems"]) == (4, 4, [])


def test_verify_names_every_damaged_file_and_exits_5(run: Path, capsys: Capture) -> None:
    for index in (0, 2):
        (run / "checkpoints" / "step-00000010" / f"layer-0000{index}.safetensors").unlink()
    assert main(["checkpoint", "verify", str(run)]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert [name in line for name, line in zip(("layer-00000", "layer-00002"), lines, strict=True)] == [True, True]
    assert main(["checkpoint", "verify", str(run), "--json"]) == 5
    assert len(document(capsys)["problems"]) == 2


def test_verify_needs_no_torch(run: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from partition.cli import main; "
        f"code = main(['checkpoint', 'verify', {str(run)!r}]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(root)}).returncode == 0


@pytest.mark.parametrize("file_format", ["safetensors", "npz"])
def test_export_writes_one_file(run: Path, capsys: Capture, file_format: str) -> None:
    arguments = ["checkpoint", "export", str(run), "--out-file", "model", "--format", file_format, "--json"]
    assert main(arguments) == 0
    shapes = document(capsys)["shapes"]
    assert shapes["0.weight"] == [10, 12]
    assert list(shapes) == [f"{index}.{name}" for index in (0, 2, 4, 6) for name in ("weight", "bias")]
    assert Path("model").stat().st_size > 1000


def test_reshard_writes_a_run_that_goes_on_in_the_other_format(run: Path, small: str, capsys: Capture) -> None:
    arguments = ["checkpoint", "reshard", str(run), "--out", "wide", "--number-format", "float64", "--json"]
    assert main(arguments) == 0
    assert document(capsys)["number_format"] == "float64"
    wide = Path("wide/checkpoints/step-00000010/layer-00000.safetensors")
    assert str(safetensors.torch.load_file(wide)["weight.momentum_buffer"].dtype) == "torch.float64"
    settings = ["training.steps=12", "precision.compute=float64"]
    assert main(["train", small, *settings, "--out", "wide", "--resume", "latest", "--json"]) == 0
    assert main(["train", small, *settings, "--out", "run", "--resume", "latest", "--json"]) == 5
    assert "`partition checkpoint reshard --number-format` converts it" in capsys.readouterr().err


def test_reshard_says_where_it_wrote(run: Path, capsys: Capture) -> None:
    assert main(["checkpoint", "reshard", str(run), "--out", "copy"]) == 0
    assert capsys.readouterr().out == "Written to copy/checkpoints/step-00000010\n"
    assert main(["checkpoint", "verify", "copy"]) == 0


def test_a_folder_called_latest_is_a_path_here(run: Path, capsys: Capture) -> None:
    (run / "checkpoints" / "step-00000004").rename("latest")
    assert main(["checkpoint", "verify", "latest", "--json"]) == 0
    assert document(capsys)["step"] == 4
