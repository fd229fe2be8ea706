"""IDX files: their names, their headers, and headers that lie."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.data import AbsentDataError, DataError, describe
from partition.data.dataset import load
from partition.data.idx import outline_file
from partition.data.outline import Packed, Raw
from tests.data.files import draw_images, idx_bytes, write_fashion, write_idx
from tests.data.reading import read_all

MakeConfig = Callable[..., ExperimentConfig]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_fashion_mnist_is_found_by_its_names(make_config: MakeConfig, tmp_path: Path, suffix: str) -> None:
    folder = write_fashion(tmp_path / "fashion", suffix=suffix)
    config = make_config("idx", in_features=784, path=str(folder))
    info, dataset = describe(config), load(config)
    assert (info.num_train, info.num_test, info.in_features) == (300, 50, 784)
    images, classes = draw_images(300, seed=len("train"))
    pixels = images.reshape(300, 784).astype(np.float64)
    expected = (pixels - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(read_all(dataset.train_x), expected, rtol=1e-6)
    assert (read_all(dataset.train_y) == classes).all()
    assert (read_all(dataset.test_y) == draw_images(50, seed=len("t10k"))[1]).all()


def test_gzipped_or_not_the_bits_are_the_same(make_config: MakeConfig, tmp_path: Path) -> None:
    read = []
    for suffix in ("", ".gz"):
        folder = write_fashion(tmp_path / f"fashion{suffix}", suffix=suffix)
        dataset = load(make_config("idx", in_features=784, path=str(folder)))
        read.append([read_all(of).tobytes() for of in (dataset.train_x, dataset.train_y, dataset.test_x)])
    assert read[0] == read[1]


def test_a_fifth_is_held_out_where_there_are_no_t10k_files(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = str(write_fashion(tmp_path / "fashion", num_test=0))
    info = describe(make_config("idx", in_features=784, path=folder))
    assert (info.num_train, info.num_test) == (240, 60)


def test_a_fraction_given_leaves_the_t10k_files_aside(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = str(write_fashion(tmp_path / "fashion"))
    info = describe(make_config("idx", in_features=784, path=folder, test_fraction=0.1))
    assert (info.num_train, info.num_test) == (270, 30)


def test_files_may_have_any_name(make_config: MakeConfig, tmp_path: Path) -> None:
    images, classes = draw_images(20)
    path, labels = write_idx(tmp_path / "a.idx", images), write_idx(tmp_path / "b", classes)
    config = make_config("idx", in_features=784, minibatch_size=5, path=str(path), targets_path=str(labels))
    assert describe(config).num_examples == 20
    tests = {"test_path": str(path), "test_targets_path": str(labels)}
    config = make_config("idx", in_features=784, minibatch_size=5, path=str(path), targets_path=str(labels), **tests)
    assert (describe(config).num_train, describe(config).num_test) == (20, 20)


def test_classes_become_one_hot_rows_for_a_squared_error(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = str(write_fashion(tmp_path / "fashion"))
    config = make_config("idx", in_features=784, out_features=12, loss="mse", path=folder)
    classes = read_all(load(make_config("idx", in_features=784, path=folder)).train_y)
    assert (read_all(load(config).train_y) == np.eye(12, dtype=np.float32)[classes]).all()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_every_type_of_the_format_is_read(make_config: MakeConfig, tmp_path: Path, dtype: str) -> None:
    values = np.arange(24).reshape(6, 2, 2).astype(dtype)
    path = write_idx(tmp_path / "x.gz", values)
    labels = write_idx(tmp_path / "y", np.zeros(6, np.uint8))
    config = make_config(
        "idx", in_features=4, minibatch_size=2, path=str(path), targets_path=str(labels), standardise="none"
    )
    dataset = load(config)
    both = np.concatenate([read_all(dataset.train_x), read_all(dataset.test_x)])
    assert sorted(both[:, 0].tolist()) == [0, 4, 8, 12, 16, 20]


def test_an_outline_says_whether_rows_can_be_read_in_place(tmp_path: Path) -> None:
    values = np.zeros((3, 2), np.uint8)
    assert outline_file(str(write_idx(tmp_path / "x", values)), "data.path").place == Raw(
        path=str(tmp_path / "x"), offset=12
    )
    # What is gzipped is told by its first bytes, not by its name.
    (tmp_path / "y").write_bytes(gzip.compress(idx_bytes(values), mtime=0))
    assert isinstance(outline_file(str(tmp_path / "y"), "data.path").place, Packed)


def header(*sizes: int, code: int = 8) -> bytes:
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing, not with 00 00 08 03"),
        (b"\0\0", "begins with 00 00, not"),
        (b"PK\3\4 a zip file", "is no IDX file: it begins with 50 4b 03 04"),
        (b"\0\0\x07\1" + b"\0" * 8, "is no IDX file"),
        (b"\0\0\x08\0", "is no IDX file"),
        (header(5, 28)[:-3], "ends within its header of 12 bytes"),
        (header(10, 2) + bytes(19), "10 x 2 values of 1 bytes, and has 19 bytes of them, less than that"),
        (header(10, 2) + bytes(21), "and has 21 bytes of them, more than that"),
        (header(2**31, 2**31), "has 2147483648 examples; the most is 1073741824"),
        (header(2, *[2**31] * 200), "has 201 axes; the most is 32"),
        (header(0, 28), "every size must be at least 1"),
        (gzip.compress(header(2**30, 2**20), mtime=0), "more than 3. bytes of gzip can"),
        (gzip.compress(header(10, 28), mtime=0)[:14], "no IDX file|within its header"),
        (b"\x1f\x8b damaged", "damaged gzip file"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        outline_file(str(tmp_path / "x"), "data.path")
    assert str(caught.value).startswith("data.path: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed[:-40], "is cut off or damaged"),
        (lambda packed: packed[:-8] + bytes(8), "is cut off or damaged .*CRC"),
        (
            lambda _: gzip.compress(header(300, 28, 28) + bytes(300 * 784 + 1)),
            "more than the 235200 bytes that its head",
        ),
        (lambda _: gzip.compress(header(300, 28, 28) + bytes(300 * 784 - 1)), "holds 235199 bytes, and its header"),
    ],
)
def test_a_damaged_gzip_file_is_refused_when_it_is_read(
    make_config: MakeConfig, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = write_fashion(tmp_path / "fashion") / "train-images-idx3-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load(make_config("idx", in_features=784, path=str(path.parent)))


def test_what_is_missing_from_a_folder_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = write_fashion(tmp_path / "fashion")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(AbsentDataError, match="has no t10k-labels-idx1-ubyte"):
        describe(make_config("idx", in_features=784, path=str(folder)))
    with pytest.raises(AbsentDataError, match=r"there is no .*nowhere"):
        describe(make_config("idx", path=str(tmp_path / "nowhere")))


def test_a_folder_and_single_files_are_not_mixed(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = str(write_fashion(tmp_path / "fashion"))
    with pytest.raises(DataError, match=r"data\.targets_path: is for single files"):
        describe(make_config("idx", path=folder, targets_path=folder))
    with pytest.raises(DataError, match=r"is a file; name its folder, or add data\.targets_path"):
        describe(make_config("idx", path=f"{folder}/train-images-idx3-ubyte.gz"))


def test_images_and_labels_of_other_counts_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = write_fashion(tmp_path / "fashion")
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.zeros(299, np.uint8))
    with pytest.raises(DataError, match=r"has 299 examples, and .*images.* has 300"):
        describe(make_config("idx", in_features=784, path=str(folder)))
