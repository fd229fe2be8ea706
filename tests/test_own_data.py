"""The command line on files of one's own: every source trains, every refusal is one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partition.cli import main
from tests.data.files import draw_table, experiment_text, save, write_fashion

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run directories land in the test's own folder, and modules come from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_table", None)


def train(*arguments: str) -> dict[str, Any]:
    assert main(["train", *arguments, "--out", "run", "--json"]) == 0
    summary: dict[str, Any] = json.loads(Path("run/summary.json").read_text())
    return summary


def metrics() -> list[str]:
    path = max(Path().glob("run*/metrics.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line)["loss_hex"] for line in path.read_text().splitlines()]


def test_the_shipped_experiment_trains_on_files_of_fashion_mnists_format(tmp_path: Path) -> None:
    """From gzipped files and from plain ones, on one device and on two: the same losses to the bit, and it learns."""
    losses = []
    for suffix in (".gz", ""):
        folder = write_fashion(tmp_path / f"fashion{suffix}", suffix=suffix)
        for planner in ("{strategies: accumulate, num_microbatches: 4}", "{strategies: pipeline, num_stages: 2, "
                        "num_microbatches: 4, schedules: gpipe}"):  # fmt: skip
            summary = train(
                str(ROOT / "configs" / "fashion_mnist.yaml"),
                f"data.path={folder}",
                "training={minibatch_size: 100, epochs: 4}",
                "model.hidden_features=[32, 32]",
                f"planner={planner}",
            )
            assert summary["final"]["test_accuracy"] > 0.9
            losses.append(metrics())
    assert len(losses[0]) == 12
    assert losses == [losses[0]] * 4


def test_the_shipped_experiment_is_planned_without_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    experiment = str(ROOT / "configs" / "fashion_mnist.yaml")
    assert main(["plan", experiment, "data.path=nowhere", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["chosen"]
    assert "data.path: there is no " in printed.err
    for verb in ("train", "validate"):
        assert main([verb, experiment, "data.path=nowhere"]) == 2
        assert "data.path: there is no " in capsys.readouterr().err


def prepare_npy(folder: Path) -> dict[str, Any]:
    x, y = draw_table()
    save(folder / "x.npy", x)
    save(folder / "y.npy", y)
    return {"source": "npy", "path": "x.npy", "targets_path": "y.npy"}


def prepare_npz(folder: Path) -> dict[str, Any]:
    x, y = draw_table()
    np.savez_compressed(folder / "a.npz", x=x, y=y)
    return {"source": "npz", "path": "a.npz"}


def prepare_csv(folder: Path) -> dict[str, Any]:
    x, y = draw_table()
    rows = (f"{','.join(map(repr, a))},{b}\n" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    (folder / "a.csv").write_text("a,b,c,class\n" + "".join(rows))
    return {"source": "csv", "path": "a.csv", "target": "class"}


def prepare_torch(folder: Path) -> dict[str, Any]:
    """The same numbers through torch's own class."""
    prepare_npy(folder)
    lines = (
        "import numpy as np, torch",
        "def make(x, y):",
        "    return torch.utils.data.TensorDataset(torch.from_numpy(np.load(x)), torch.from_numpy(np.load(y)))",
    )
    (folder / "own_table.py").write_text("\n".join(lines))
    arguments = {"x": "x.npy", "y": "y.npy"}
    return {"source": "torch", "dataset": "own_table:make", "arguments": arguments, "standardise": "each"}


def test_every_source_trains_to_the_same_bits(tmp_path: Path) -> None:
    """The same numbers in four kinds of files, and in a split over two devices."""
    losses = []
    for prepare in (prepare_npy, prepare_npz, prepare_csv, prepare_torch):
        Path("own.yaml").write_text(experiment_text(prepare(tmp_path)))
        for strategy in ("accumulate", "pipeline"):
            train("own.yaml", f"planner={{strategies: {strategy}, num_microbatches: 5, schedules: gpipe}}")
            losses.append(metrics())
    assert len(losses[0]) == 8
    assert losses == [losses[0]] * 8


def test_a_run_can_be_repeated_from_its_directory(tmp_path: Path) -> None:
    """Its config.yaml stands elsewhere, and finds the same files."""
    Path("own.yaml").write_text(experiment_text(prepare_npy(tmp_path)))
    train("own.yaml")
    first = metrics()
    train("run/config.yaml")
    assert metrics() == first


def test_a_plan_is_for_any_data(tmp_path: Path) -> None:
    Path("own.yaml").write_text(experiment_text(prepare_csv(tmp_path)))
    assert main(["plan", "own.yaml", "--out", "planned", "--json"]) == 0
    prepare_npz(tmp_path)
    train("own.yaml", "data={source: npz, path: a.npz}", "--plan", "planned/plan.json")


def test_diabetes_is_a_regression_that_learns() -> None:
    text = experiment_text({"source": "diabetes"}, in_features=10, out_features=1, loss="mse")
    Path("own.yaml").write_text(text)
    summary = train("own.yaml", "training={minibatch_size: 32, epochs: 20}")
    # Targets have variance 1: to predict their mean would be 1.
    assert summary["final"]["test_loss"] < 0.8
    assert summary["final"]["test_accuracy"] is None


Break = Callable[[Path], None]


def cut(name: str) -> Break:
    def shorten(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-5])

    return shorten


def replace(name: str, old: str, new: str) -> Break:
    def change(folder: Path) -> None:
        (folder / name).write_text((folder / name).read_text().replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("prepare", "spoil", "message"),
    [
        (prepare_npy, lambda folder: (folder / "x.npy").unlink(), "data.path: there is no "),
        (prepare_npy, cut("x.npy"), "data.path: "),
        (
            prepare_npy,
            lambda folder: save(folder / "y.npy", np.arange(40) % 5),
            "model.out_features: is 4, but example",
        ),
        (prepare_npy, lambda folder: save(folder / "x.npy", np.full((40, 3), np.nan)), "data.path: "),
        (prepare_npy, lambda folder: save(folder / "x.npy", np.ones((40, 2))), "model.in_features: is 3, but "),
        (prepare_npz, cut("a.npz"), "data.path: "),
        (prepare_csv, replace("a.csv", "class\n", "class\n1,2,three,0\n"), "line 2: column c holds 'three'"),
        (prepare_torch, replace("own_table.py", "import", "import no_such_thing,"), "data.dataset: "),
    ],
)
def test_what_is_wrong_with_data_ends_in_one_line(
    prepare: Callable[[Path], dict[str, Any]],
    spoil: Break,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("own.yaml").write_text(experiment_text(prepare(tmp_path)))
    spoil(tmp_path)
    capsys.readouterr()
    assert main(["train", "own.yaml"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()
