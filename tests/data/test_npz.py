"""Arrays by name in one file: in place where they are not compressed, and nothing that swells."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partition.config import DataConfig, ExperimentConfig
from partition.data import DataError, describe
from partition.data.dataset import load
from partition.data.npz import outline_npz
from partition.data.outline import Packed, Raw
from tests.data.files import draw_table
from tests.data.reading import read_all
from tests.data.test_npy import describing, npy

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture
def make(make_config: MakeConfig, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    def make_on(**options: Any) -> ExperimentConfig:
        defaults = {"in_features": 3, "out_features": 4, "minibatch_size": 10, "path": str(tmp_path / "a.npz")}
        return make_config("npz", **(defaults | options))

    return make_on


@pytest.mark.parametrize(("write", "place"), [(np.savez, Raw), (np.savez_compressed, Packed)])
def test_compressed_or_in_place_the_rows_are_the_same(
    make: MakeConfig, tmp_path: Path, write: Callable[..., None], place: type
) -> None:
    x, y = draw_table()
    write(tmp_path / "a.npz", x=x, y=y)
    config = make(compute="float64", standardise="none")
    assert isinstance(outline_npz(config.data)[0].features.place, place)
    dataset = load(config)
    both = np.concatenate([read_all(dataset.train_x), read_all(dataset.test_x)])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, x.tolist()))
    assert sorted([*read_all(dataset.train_y), *read_all(dataset.test_y)]) == sorted(y)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_four_arrays_in_one_file_in_columns(make: MakeConfig, tmp_path: Path, write: Callable[..., None]) -> None:
    x, y = draw_table()
    write(tmp_path / "a.npz", x_train=np.asfortranarray(x), y_train=y, x_test=x[:7], y_test=y[:7])
    names = {"features_key": "x_train", "targets_key": "y_train"}
    tests = {"test_features_key": "x_test", "test_targets_key": "y_test"}
    config = make(compute="float64", standardise="none", **names, **tests)
    assert (describe(config).num_train, describe(config).num_test) == (40, 7)
    dataset = load(config)
    assert (read_all(dataset.train_x) == x).all()
    assert (read_all(dataset.test_x) == x[:7]).all()
    assert (read_all(dataset.test_y) == y[:7]).all()


def test_a_test_file_has_the_same_names(make: MakeConfig, tmp_path: Path) -> None:
    x, y = draw_table()
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez(tmp_path / "b.npz", x=x[:5], y=y[:5])
    info = describe(make(test_path=str(tmp_path / "b.npz")))
    assert (info.num_train, info.num_test) == (40, 5)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(make: MakeConfig, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 3)), labels=np.zeros(4))
    with pytest.raises(DataError, match=r"data\.features_key: .*a\.npz has no array x; there are: images, labels"):
        describe(make())


def write_members(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy_of(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_python_objects_are_never_loaded(make: MakeConfig, tmp_path: Path) -> None:
    write_members(tmp_path / "a.npz", x=npy_of(np.array([[1], "a"], dtype=object)), y=npy_of(np.zeros(2)))
    with pytest.raises(DataError, match=r"data\.features_key: x in .* holds Python objects"):
        describe(make())


def test_a_bomb_is_refused_by_its_claim(make: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header may be honest about a size that nobody has."""
    write_members(tmp_path / "a.npz", x=npy_of(np.zeros((2**16, 3))), y=npy_of(np.zeros(2**16)))
    config = make()
    monkeypatch.setattr("partition.data.stores.free_bytes", lambda: 2**20)
    with pytest.raises(DataError, match=r"must be read whole and takes 1.5 MiB, 1.0 MiB are free; unpack it"):
        load(config)


def test_a_member_that_is_not_what_its_header_says(make: MakeConfig, tmp_path: Path) -> None:
    write_members(tmp_path / "a.npz", x=npy(describing("(4, 3)"), values=bytes(47)), y=npy_of(np.zeros(4)))
    with pytest.raises(DataError, match="48 bytes, and has 47, less than that"):
        describe(make())


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("position", range(0, 700, 9))
def test_a_damaged_file_is_refused_or_read(
    make: MakeConfig, tmp_path: Path, write: Callable[..., None], position: int
) -> None:
    """Whatever byte is overwritten: never another exception. In place, values have no checksum."""
    x, y = draw_table(20)
    write(tmp_path / "a.npz", x=x, y=y)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[position % len(content)] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    try:
        dataset = load(make())
        read_all(dataset.train_x)
    except DataError as error:
        assert str(error).isprintable()  # noqa: PT017


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6" + bytes(18), b"no zip file at all"])
def test_what_is_no_zip_file_is_refused(make: MakeConfig, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is no readable \.npz file|has no array x; there are: none"):
        describe(make())


def test_a_checksum_is_checked_where_all_is_read(tmp_path: Path, make: MakeConfig) -> None:
    write_members(tmp_path / "a.npz", x=npy_of(draw_table()[0]), y=npy_of(draw_table()[1]))
    content = (tmp_path / "a.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        checksum = archive.getinfo("x.npy").CRC.to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(content.replace(checksum, b"\0\1\2\3"))
    with pytest.raises(DataError, match="CRC"):
        load(make())


def test_a_config_of_npz_has_usual_names() -> None:
    assert DataConfig(source="npz", path="a").features_key == "x"
