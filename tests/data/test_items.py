"""Datasets by their import path: torch's, and anything else with a length and items."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.data import DataError, check, describe
from partition.data.dataset import load
from tests.data.reading import read_all

MakeConfig = Callable[..., ExperimentConfig]

MODULE = """\
import numpy as np

class Squares:
    '''Items (x, x*x mod 4) of x = 0, 1, ...'''
    def __init__(self, count=10, width=2, start=0, bad=None):
        self.count, self.width, self.start, self.bad = count, width, start, bad
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        x = self.start + index
        if self.bad and index == 7:
            return eval(self.bad)
        return [float(x)] * self.width, x * x % 4

class Nested:
    Squares = Squares

class Endless:
    def __getitem__(self, index):
        return [0.0], 0

class Failing:
    def __init__(self):
        raise OSError("no such drive\\nat all")

def list_of(items):
    return eval(items)

def leave():
    raise SystemExit(3)

number = 5
"""


@pytest.fixture(autouse=True)
def in_folder_of_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_items.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_items", None)


@pytest.fixture
def make(make_config: MakeConfig) -> Callable[..., ExperimentConfig]:
    def make_on(dataset: str = "own_items:Squares", **options: Any) -> ExperimentConfig:
        return make_config(
            "torch", **({"in_features": 2, "out_features": 4, "minibatch_size": 2} | options), dataset=dataset
        )

    return make_on


@pytest.mark.parametrize("dataset", ["own_items:Squares", "own_items:Nested.Squares"])
def test_items_are_read_with_their_targets(make: MakeConfig, dataset: str) -> None:
    config = make(dataset)
    info = describe(config)
    assert (info.num_train, info.num_test, info.in_features) == (8, 2, 2)
    found = load(config)
    x = np.concatenate([read_all(found.train_x), read_all(found.test_x)])
    y = np.concatenate([read_all(found.train_y), read_all(found.test_y)])
    assert sorted(x[:, 0].tolist()) == list(range(10))
    assert (x[:, 0] ** 2 % 4 == y).all()


def test_arguments_are_passed_and_tests_have_their_own(make: MakeConfig) -> None:
    config = make(
        arguments={"count": 6, "width": 3}, test_arguments={"count": 4, "width": 3, "start": 100}, in_features=3
    )
    assert (describe(config).num_train, describe(config).num_test) == (6, 4)
    assert read_all(load(config).test_x)[:, 0].tolist() == [100, 101, 102, 103]


def test_features_are_standardised_only_if_asked(make: MakeConfig) -> None:
    assert read_all(load(make()).train_x).max() >= 7
    assert abs(read_all(load(make(standardise="each")).train_x).mean()) < 1e-6


def test_a_stage_that_reads_targets_makes_no_array_of_inputs(make: MakeConfig) -> None:
    """Features of item 7 that are none do not matter to who reads targets."""
    dataset = load(make(arguments={"bad": "('no features', 1)"}), has_inputs=False)
    assert sorted([*read_all(dataset.train_y), *read_all(dataset.test_y)]) == [0] * 5 + [1] * 5


def test_a_torch_dataset_is_one(make: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "own_tensors.py").write_text(
        "import torch\n"
        "def make(count=12):\n"
        "    x = torch.arange(count * 4).reshape(count, 1, 2, 2) / 8\n"
        "    return torch.utils.data.TensorDataset(x, torch.arange(count) % 3)\n"
    )
    dataset = load(make("own_tensors:make", in_features=4, out_features=3))
    order = np.argsort(read_all(dataset.train_x)[:, 0])
    assert (read_all(dataset.train_x)[order][:, 0] * 2 % 3 == read_all(dataset.train_y)[order]).all()


def test_describing_imports_no_torch_that_the_dataset_does_not(tmp_path: Path) -> None:
    experiment = (
        "model: {in_features: 2, hidden_features: [4], out_features: 4}\n"
        "data: {source: torch, dataset: 'own_items:Squares'}\n"
        "training: {minibatch_size: 2}\noptimizer: {lr: 0.1}\n"
        "cluster: {devices: {kind: simulated, memory: 1 MiB}}\n"
    )
    (tmp_path / "items.yaml").write_text(experiment)
    code = (
        "import sys; from partition.cli import main; code = main(['plan', 'items.yaml', '--json']); "
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("dataset", "arguments", "key", "message"),
    [
        ("own_items", {}, "dataset", "own_items is no import path; write it package.module:Name"),
        ("own_items:", {}, "dataset", "is no import path"),
        ("no_such_module:Name", {}, "dataset", "cannot be imported: ModuleNotFoundError: No module named 'no_such"),
        ("own_items:Name", {}, "dataset", "cannot be imported: AttributeError"),
        ("own_items:number", {}, "dataset", "is of type int; name a class or a function"),
        ("own_items:Failing", {}, "arguments", r"made with \(\): OSError: no such drive at all"),
        ("own_items:Squares", {"size": 3}, "arguments", r"made with \(size=3\): TypeError: "),
        ("own_items:leave", {}, "arguments", r"made with \(\): SystemExit: 3"),
        ("own_items:Endless", {}, "dataset", "has no length .*; name a Dataset with __len__"),
        ("own_items:list_of", {"items": "[]"}, "dataset", "is empty"),
        ("own_items:list_of", {"items": "[1, 2]"}, "dataset", r"item 0 is of type int; make it a pair"),
        (
            "own_items:list_of",
            {"items": "[(1, 2, 3)]"},
            "dataset",
            r"item 0 is of type tuple, of 3 parts; make it a pair",
        ),
        ("own_items:list_of", {"items": "[('a', 2)]"}, "dataset", r"the features holds values of type <U1"),
        ("own_items:list_of", {"items": "[(object(), 2)]"}, "dataset", "never loaded"),
        ("own_items:list_of", {"items": "[([[1], [2, 3]], 2)]"}, "dataset", "item 0 is no array: ValueError"),
        ("own_items:list_of", {"items": "{1: 2}"}, "dataset", "item 0 cannot be read: KeyError: 0"),
        ("own_items:list_of", {"items": "[(1.0, 2)]"}, "dataset", "has one example"),
    ],
)
def test_what_is_no_dataset_is_told_in_one_line(
    make: MakeConfig, dataset: str, arguments: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        describe(make(dataset, arguments=arguments))
    assert caught.value.key == f"data.{key}"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1/0", "item 7 cannot be read: ZeroDivisionError"),
        ("([1.0], 1)", r"the features are float64 of shape \(1,\) in item 7, and float64 of shape \(2,\) in item 0"),
        ("([1.0, float('nan')], 1)", "the features has NaN, .* in example 7, value 1"),
        ("([1.0, 2.0], 9)", r"model\.out_features: is 4, but example 7 of .* has the class 9"),
        ("([1.0, 2.0], 1.5)", "the targets are float64 of shape .* in item 7, and int64"),
    ],
)
def test_an_item_that_is_wrong_is_told_when_it_is_read(make: MakeConfig, bad: str, message: str) -> None:
    dataset = load(make(arguments={"bad": bad}))
    everything = (dataset.train_x, dataset.test_x, dataset.train_y, dataset.test_y)
    with pytest.raises(DataError, match=message):
        [read_all(rows) for rows in everything]


def test_a_model_of_another_width_is_told(make: MakeConfig) -> None:
    (problem,) = check(make(arguments={"width": 5}))
    assert "is 2, but an example of torch has 5 features" in problem.message
