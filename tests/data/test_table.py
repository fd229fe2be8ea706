"""Tables of text: headers, columns, counted lines, and cells that are no numbers."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.data import DataError, describe
from partition.data.dataset import load
from tests.data.files import draw_table
from tests.data.reading import read_all

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture
def make(make_config: MakeConfig, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """An experiment on a text, by default one that learns numbers."""

    def make_on(text: str | bytes, **options: Any) -> ExperimentConfig:
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        defaults = {"in_features": 2, "out_features": 1, "minibatch_size": 2, "loss": "mse", "path": str(path)}
        return make_config("csv", **({"standardise": "none", "compute": "float64"} | defaults | options))

    return make_on


def read(config: ExperimentConfig) -> tuple[list[list[float]], list[Any]]:
    """Features and targets of all examples, sorted."""
    dataset = load(config)
    x = np.concatenate([read_all(dataset.train_x), read_all(dataset.test_x)])
    y = np.concatenate([read_all(dataset.train_y), read_all(dataset.test_y)])
    order = np.argsort(x[:, 0])
    return x[order].tolist(), y[order].tolist()


PLAIN = ([[1.0, 2.0], [4.0, 5.0], [7.0, 8.0]], [[3.0], [6.0], [9.0]])


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a,b,c\n1,2,3\n4,5,6\n7,8,9\n", {}),
        ("1,2,3\n4,5,6\n7,8,9\n", {}),
        ("1,2,3\r\n4,5,6\r\n\r\n7,8,9", {}),
        (b"\xef\xbb\xbf1,2,3\n4,5,6\n7,8,9\n", {}),
        (b"\xef\xbb\xbfa,b,c\n1,2,3\n4,5,6\n7,8,9\n", {"target": "c"}),
        ('"a","b, too","c"\n1, 2, 3\n"4","5","6"\n7,8,9\n', {"target": "c"}),
        ("a;b;c\n1;2;3\n4;5;6\n7;8;9\n", {"delimiter": ";"}),
        ("1\t2\t3\n4\t5\t6\n7\t8\t9\n", {"delimiter": "\t"}),
        ("c,a,b\n3,1,2\n6,4,5\n9,7,8\n", {"target": "c"}),
        ("c,a,b\n3,1,2\n6,4,5\n9,7,8\n", {"target": 0}),
        ("a,0,b\n1,3,2\n4,6,5\n7,9,8\n", {"target": 0}),  # a name comes before an index
        ("a,c,b\n1,3,2\n4,6,5\n7,9,8\n", {"target": -2}),
        ("-1,-2,-3\n1,2,3\n4,5,6\n7,8,9\n", {"header": True, "target": 2}),
        ("1e0,2.0,+3\n4,5,6\n7,8,9\n", {"header": False}),
    ],
)
def test_a_table_is_read_as_it_is_written(make: MakeConfig, text: str, options: dict[str, Any]) -> None:
    config = make(text, **options)
    assert (describe(config).num_examples, describe(config).in_features) == (3, 2)
    assert read(config) == PLAIN


def test_several_columns_may_be_learned(make: MakeConfig) -> None:
    config = make("a,b,c\n1,2,3\n4,5,6\n", target=["c", "a"], in_features=1, out_features=2, minibatch_size=1)
    assert read(config) == ([[2.0], [5.0]], [[3.0, 1.0], [6.0, 4.0]])


def test_classes_are_whole_numbers(make: MakeConfig) -> None:
    options = {"loss": "cross_entropy", "out_features": 3}
    assert read(make("1,2,0\n4,5,1.0\n7,8,2\n", **options))[1] == [0, 1, 2]
    with pytest.raises(DataError, match=r"model\.out_features: is 3, but example 1 of .* has the class 3"):
        load(make("1,2,0\n4,5,3\n7,8,2\n", **options))


def test_a_test_file_is_held_out(make: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n9,9,9\n")
    config = make("a,b,c\n1,2,3\n4,5,6\n7,8,9\n", test_path=str(tmp_path / "t.csv"))
    assert (describe(config).num_train, describe(config).num_test) == (3, 1)
    dataset = load(config)
    assert read_all(dataset.train_x).tolist() == PLAIN[0]
    assert read_all(dataset.test_x).tolist() == [[9, 9]]


def test_many_lines_are_read_in_portions(make: MakeConfig) -> None:
    x, y = draw_table(70_000, 1)
    text = "".join(f"{a!r},{b}\n" for a, b in zip(x[:, 0].tolist(), y.tolist(), strict=True))
    features, targets = read(make(text, in_features=1, loss="cross_entropy", out_features=4))
    order = np.argsort(x[:, 0])
    assert (np.array(features)[:, 0] == x[order, 0]).all()
    assert (np.array(targets) == y[order]).all()


def test_only_the_columns_wanted_are_kept(make: MakeConfig) -> None:
    """Inputs that are wrong do not matter to who reads the targets."""
    config = make("1,x,3\n4,5,6\n7,8,9\n", header=False)
    dataset = load(config, has_inputs=False)
    assert sorted(np.concatenate([read_all(dataset.train_y), read_all(dataset.test_y)])[:, 0]) == [3, 6, 9]
    with pytest.raises(DataError, match="line 1: column 1 holds 'x'"):
        load(config, has_targets=False)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "has no lines"),
        ("\n  \n", {}, "has no lines"),
        ("a,b,c\n", {}, "has a header and no other line"),
        ("1;2;3\n4;5;6\n", {}, r"data\.delimiter: ',' parts no columns in line 1"),
        ("a,b,c\n1,2,3\n\n4,,6\n", {}, "table.csv, line 4: column b is empty; fill it"),
        ("a,b,c\n1,2,3\n4,five,6\n", {}, "line 3: column b holds 'five', which is no number"),
        ("1,2,3\n4,1_000,6\n", {}, "line 2: column 1 holds '1_000', which is no number"),
        ("a,b,c\n1,2,3\n4,5,nan\n", {}, "line 3: column c holds nan, which is not finite"),
        ("a,b,c\n1,2,3\n4,-inf,5\n", {}, "line 3: column b holds -inf, which is not finite"),
        ("a,b,c\n1,2,3\n4,1e999,5\n", {}, "line 3: column b holds 1e999, which is not finite"),
        ("1,2,3\n4,5\n", {}, "line 2: has 2 cells, the first line has 3"),
        ("1,2,3\n4,5,6,7\n", {}, "line 2: has 4 cells, the first line has 3"),
        ("1,2,3\n4,5,6,\n", {}, "line 2: has 4 cells"),
        ("a,b,c\n1,2,3\n4,5,6\n", {"header": False}, "line 1: column 0 holds 'a'"),
        ("a,b,c\n1,2,3\n4,5,6\n", {"target": "d"}, r"data\.target: d is no column .* 3 columns \(a, b, c\)"),
        ("1,2,3\n4,5,6\n", {"target": 3}, r"data\.target: 3 is no column .* 3 columns \(0, 1, 2|no header"),
        ("a,a,c\n1,2,3\n4,5,6\n", {"target": "a"}, r"names 2 columns"),
        ("a,b\n1,2\n4,5\n", {"target": ["a", "b"]}, r"data\.target: leaves no column"),
        ("1,2,3\n", {}, "has one example, and one is to be held out"),
        (b"\xff\xfe1\0,2\0", {}, "has no lines|no number|a header and no other|parts no columns"),
        (b"1,2,3\n4,\xff,6\n", {}, "line 2: column 1 holds"),
        (b"1,2,3\n4,\0,6\n", {}, "line 2: column 1 holds|line 2: line contains NUL"),
        ('1,2,3\n4,"5,6\n', {}, "line 2"),
        ("1,2,3\n" + "4" * 200_000 + ",5,6\n", {}, "line 2"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(
    make: MakeConfig, text: str | bytes, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(make(text, **options))
    assert str(caught.value).isprintable()


def test_a_line_without_end_is_not_read_whole(make: MakeConfig, tmp_path: Path) -> None:
    """A billion characters, which a sparse file holds for nothing."""
    config = make("1,2,3\n4,5,6\n")
    with (tmp_path / "table.csv").open("r+b") as stream:
        stream.truncate(10**9)
    tracemalloc.start()
    with pytest.raises(DataError, match="has more than 16 MiB in line 3"):
        describe(config)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100 * 2**20


def test_a_table_that_changes_between_counting_and_reading(
    make: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from partition.data import dataset as module

    outline_own = module.outline_own
    config = make("1,2,3\n4,5,6\n7,8,9\n")
    for text, message in (("1,2,3\n" * 4, "has grown"), ("1,2,3\n" * 2, "has shrunk")):

        def outline_then_change(config: ExperimentConfig, text: str = text) -> Any:
            outlined = outline_own(config)
            (tmp_path / "table.csv").write_text(text)
            return outlined

        (tmp_path / "table.csv").write_text("1,2,3\n4,5,6\n7,8,9\n")
        monkeypatch.setattr(module, "outline_own", outline_then_change)
        with pytest.raises(DataError, match=message):
            load(config)
