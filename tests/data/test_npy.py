"""Arrays in .npy files: read in place, by rows, and never as a pickle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.data import DataError, check, describe
from partition.data.dataset import Dataset, load
from partition.data.npy import outline_file
from partition.data.rows import read_rows
from tests.data.files import draw_table, save
from tests.data.reading import read_all

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture
def make(make_config: MakeConfig, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """An experiment on two arrays, by default a table of three features and four classes."""

    def make_on(features: Any = None, targets: Any = None, **options: Any) -> ExperimentConfig:
        usual = draw_table()
        paths = {
            "path": save(tmp_path / "x.npy", usual[0] if features is None else features),
            "targets_path": save(tmp_path / "y.npy", usual[1] if targets is None else targets),
        }
        defaults = {"in_features": 3, "out_features": 4, "minibatch_size": 10}
        return make_config("npy", **(defaults | paths | options))

    return make_on


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "|u1", "<i8", ">i2", "|b1", "<u4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_plain_type_and_order_is_read_row_by_row(make: MakeConfig, dtype: str, order: Any) -> None:
    values = np.asarray(draw_table()[0].astype(dtype), order=order)
    dataset = load(make(values, standardise="none", compute="float64"))
    both = np.concatenate([read_all(dataset.train_x), read_all(dataset.test_x)])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, values.astype(float).tolist()))


def test_each_feature_is_standardised_by_the_training_examples(make: MakeConfig) -> None:
    train_x = read_all(load(make(compute="float64")).train_x)
    np.testing.assert_allclose(train_x.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(train_x.std(axis=0), 1, atol=1e-12)


def test_test_files_are_scaled_as_the_training_file(make: MakeConfig, tmp_path: Path) -> None:
    x, y = draw_table(8)
    tests = {"test_path": save(tmp_path / "t.npy", x), "test_targets_path": save(tmp_path / "u.npy", y)}
    dataset = load(make(compute="float64", **tests))
    train = draw_table()[0]
    np.testing.assert_allclose(read_all(dataset.test_x), (x - train.mean(axis=0)) / train.std(axis=0), rtol=1e-12)
    assert (read_all(dataset.test_y) == y).all()


def test_a_constant_feature_becomes_zero(make: MakeConfig) -> None:
    x = draw_table()[0]
    x[:, 1] = 0.1
    assert abs(read_all(load(make(x)).train_x)[:, 1]).max() < 1e-12


@pytest.mark.parametrize("scales", [False, True])
def test_real_targets_of_several_values(make: MakeConfig, scales: bool) -> None:
    y = draw_table(40, 2)[0]
    config = make(None, y, out_features=2, loss="mse", compute="float64", standardise_targets=scales)
    train_y = read_all(load(config).train_y)
    assert train_y.shape == (32, 2)
    assert (abs(train_y.mean()) < 1e-12) == scales


def test_a_column_of_targets_is_one_value(make: MakeConfig) -> None:
    assert read_all(load(make(None, draw_table()[1][:, None])).train_y).shape == (32,)
    config = make(None, draw_table()[0][:, 0], out_features=1, loss="mse")
    assert read_all(load(config).train_y).shape == (32, 1)


def test_whole_numbers_as_floats_are_classes(make: MakeConfig) -> None:
    assert read_all(load(make(None, draw_table()[1].astype(np.float32))).train_y).dtype == np.int64


@pytest.mark.parametrize(
    ("targets", "options", "key", "message"),
    [
        (np.arange(40) % 5, {}, "model.out_features", "is 4, but example 4 of .* has the class 4 .*out_features to 5"),
        (
            np.arange(40) % 4 - 1,
            {},
            "data.targets_path",
            "example 0 of .* has the class -1; classes are counted from 0",
        ),
        (np.full(40, 1.5), {}, "data.targets_path", "has the class 1.5, which is no whole number; .*mse"),
        (np.full(40, np.nan), {}, "data.targets_path", "has the class nan"),
        (np.zeros((40, 4)), {}, "data.targets_path", "has 4 values an example, and model.loss cross_entropy takes one"),
        (np.zeros((40, 3)), {"loss": "mse"}, "model.out_features", "is 4, but .* has 3 values an example"),
        (np.zeros(40), {"loss": "mse"}, "model.out_features", "is 4, but .* has 1 values an example"),
        (np.full((40, 4), np.inf), {"loss": "mse"}, "data.targets_path", "NaN, an infinity .* in example 0, value 0"),
        (np.zeros(39), {}, "data.targets_path", "has 39 examples, and .* has 40"),
        (
            np.zeros(40, int),
            {"loss": "mse", "standardise_targets": True},
            "data.targets_path",
            "holds classes, which have no mean",
        ),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(
    make: MakeConfig, targets: Any, options: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(make(None, targets, **options))
    assert caught.value.key == key


def read_features(dataset: Dataset) -> None:
    read_all(dataset.train_x)
    read_all(dataset.test_x)


@pytest.mark.parametrize("way", ["each", "together", "none"])
@pytest.mark.parametrize("row", [0, 17, 39])
def test_not_a_number_is_refused_with_its_place(make: MakeConfig, way: str, row: int) -> None:
    """Before the first step where the features are standardised, and else when the row is read."""
    x = draw_table()[0]
    x[row, 2] = np.nan
    config = make(x, standardise=way)
    with pytest.raises(DataError, match=f"example {row}, value 2 "):
        read_features(load(config)) if way == "none" else load(config)


def test_what_overflows_the_precision_is_refused(make: MakeConfig) -> None:
    x = draw_table()[0]
    x[3, 1] = 1e300
    dataset = load(make(x, standardise="none"))
    with pytest.raises(DataError, match=r"too large for precision\.compute in example 3, value 1"):
        read_features(dataset)
    x[:20, 1] = 1e300
    with pytest.raises(DataError, match="too large for a standard deviation"):
        load(make(x))


def npy(header: str, version: bytes = b"\1\0", values: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + values


def describing(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no .npy array: it begins with nothing"),
        (b"\x89PNG\r\n", "is no .npy array: it begins with 89 50 4e 47"),
        (b"\x93NUMPY", "is of version 0"),
        (npy(describing("(1,)"), b"\7\0"), "is of version 7"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff", "has a header of 4294967295 bytes"),
        (npy("__import__('os').system('false')"), "has a header that cannot be read"),
        (npy("(" * 5000), "has a header that cannot be read"),
        (npy("{}"), "has a header that cannot be read"),
        (npy(describing("[2, 3]")), "has a header without a shape"),
        (npy(describing("(2, -3)")), "has a header without a shape"),
        (npy(describing("(True, 3)")), "has a header without a shape"),
        (npy(describing("()"), values=bytes(4)), "holds a single value"),
        (npy(describing("(0, 3)")), "every size must be at least 1"),
        (npy(describing(f"({2**60}, 3)")), "the most is 1073741824"),
        (npy(describing(f"(2, {2**60})")), "values an example; the most"),
        (npy(describing("(2, 3)"), values=bytes(23)), "24 bytes, and has 23, less than that"),
        (npy(describing("(2, 3)"), values=bytes(25)), "24 bytes, and has 25, more than that"),
        (npy(describing("(2, 3)", "'|O'"), values=bytes(48)), "holds Python objects, which are never loaded"),
        (npy(describing("(2, 3)", "'<c8'"), values=bytes(48)), "holds values of type <c8"),
        (npy(describing("(2,)", "[('a', '<f4')]"), values=bytes(8)), "holds values of type"),
        (npy(describing("(2,)", "'<f16'"), values=bytes(32)), "holds values of type <f16"),
        (npy(describing("(2,)", "'<U5'"), values=bytes(40)), "holds values of type <U5"),
    ],
)
def test_a_header_that_cannot_be_data_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        outline_file(str(tmp_path / "x.npy"), "data.path")
    assert str(caught.value).isprintable()


def test_python_objects_are_refused_as_numpy_saves_them(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(DataError, match="never loaded"):
        outline_file(path, "data.path")


def test_a_claim_of_a_thousand_terabytes_costs_nothing(make: MakeConfig, tmp_path: Path) -> None:
    """A sparse file may even keep it: nothing is reserved for it."""
    config = make()
    header = npy(describing(f"({2**20}, {2**21})"))
    with (tmp_path / "x.npy").open("wb") as stream:
        stream.write(header)
        try:
            os.truncate(stream.fileno(), len(header) + 2**43)
        except OSError:
            pytest.skip("this file system keeps no sparse file of 8 TiB")
    (problem,) = check(config)
    assert "has 40 examples, and" in problem.message


@pytest.mark.parametrize("kind", ["a folder", "not a regular file"])
def test_what_is_no_file_is_not_opened(make: MakeConfig, tmp_path: Path, kind: str) -> None:
    config = make()
    (tmp_path / "x.npy").unlink()
    if kind == "a folder":
        (tmp_path / "x.npy").mkdir()
    else:
        os.mkfifo(tmp_path / "x.npy")
    (problem,) = check(config)
    assert (problem.key, kind in problem.message) == ("data.path", True)


def test_a_file_cut_off_under_a_run_is_an_error(make: MakeConfig, tmp_path: Path) -> None:
    dataset = load(make())
    os.truncate(tmp_path / "x.npy", 300)
    with pytest.raises(DataError, match="ends before byte 300: it has been cut off"):
        read_all(dataset.train_x)


def test_other_features_than_the_models_are_told_with_both_numbers(make: MakeConfig) -> None:
    (problem,) = check(make(in_features=5))
    assert problem.key == "model.in_features"
    assert "is 5, but an example of npy has 3 features" in problem.message


def test_images_are_flat_rows_of_features(make: MakeConfig) -> None:
    config = make(np.arange(240).reshape(40, 2, 3), in_features=6, standardise="none")
    assert describe(config).in_features == 6
    row = np.empty((1, 6), np.float32)
    read_rows(load(config).train_x, np.array([0]), row)
    assert (np.diff(row) == 1).all()


def test_a_signalling_nan_is_refused_without_a_warning(make: MakeConfig) -> None:
    """A damaged float32 may be one: converting it warned, and a warning is not one line that says what to do."""
    x = draw_table()[0].astype(np.float32)
    x.view(np.uint32)[5, 1] = 0x7FA00000
    for way in ("each", "none"):
        dataset = None if way == "each" else load(make(x, standardise=way))
        with pytest.raises(DataError, match="example 5, value 1"):
            load(make(x)) if dataset is None else read_features(dataset)
