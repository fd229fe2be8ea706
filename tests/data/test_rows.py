"""Rows written where they are wanted: the same bits in any order, whoever reads, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset, load
from partition.data.description import check
from partition.data.npy import outline_file
from partition.data.refusal import DataError
from partition.data.rows import Elsewhere, read_rows
from partition.data.scaling import BLOCK_BYTES, measure
from partition.data.stores import open_store
from tests.data.files import draw_table, save, write_fashion
from tests.data.reading import read_all

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> ExperimentConfig:
    x, y = draw_table(500, 3)
    paths = {"path": save(tmp_path / "x.npy", x), "targets_path": save(tmp_path / "y.npy", y)}
    return make_config("npy", in_features=3, out_features=4, minibatch_size=10, **paths)


@pytest.mark.parametrize("part", ["train_x", "train_y", "test_x", "test_y"])
def test_rows_come_in_the_order_asked_for(config: ExperimentConfig, part: str) -> None:
    rows = getattr(load(config), part)
    everything = read_all(rows)
    assert everything.shape == rows.shape
    assert everything.dtype == rows.dtype

    @given(indices=st.lists(st.integers(0, len(rows) - 1), max_size=40))
    def check(indices: list[int]) -> None:
        out = np.full((len(indices), *rows.shape[1:]), -1, rows.dtype)
        read_rows(rows, np.array(indices, np.int64), out)
        assert out.tobytes() == everything[indices].tobytes()

    check()


def test_rows_are_written_into_a_part_of_an_array(config: ExperimentConfig) -> None:
    rows = load(config).train_x
    out = np.zeros((4, 3, 2), np.float32)
    read_rows(rows, np.array([7, 0, 7]), out[1:, :, 1])
    assert (out[1:, :, 1] == read_all(rows)[[7, 0, 7]]).all()
    assert not out[0].any()
    assert not out[:, :, 0].any()


def digests(dataset: Dataset, parts: str) -> list[bytes]:
    return [read_all(getattr(dataset, f"{of}_{part}")).tobytes() for of in ("train", "test") for part in parts]


SOURCES: list[tuple[str, dict[str, Any]]] = [
    ("digits", {}),
    ("diabetes", {"in_features": 10, "out_features": 1, "loss": "mse"}),
    ("synthetic", {"loss": "mse"}),
    ("synthetic", {}),
    ("idx", {"in_features": 784, "path": "fashion"}),
    ("idx", {"in_features": 784, "path": "fashion", "loss": "mse"}),
    ("idx", {"in_features": 784, "path": "fashion", "test_fraction": 0.5}),
]


@pytest.mark.parametrize(("source", "options"), SOURCES)
def test_a_stage_reads_what_it_needs_and_the_same_bits(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_fashion(tmp_path / "fashion")
    config = make_config(source, **options)
    whole = load(config)
    inputs, targets = load(config, has_targets=False), load(config, has_inputs=False)
    assert digests(inputs, "x") == digests(whole, "x")
    assert digests(targets, "y") == digests(whole, "y")
    for half, absent in ((inputs, "y"), (targets, "x")):
        for of in ("train", "test"):
            rows, there = getattr(half, f"{of}_{absent}"), getattr(whole, f"{of}_{absent}")
            assert isinstance(rows, Elsewhere)
            assert (rows.shape, rows.dtype) == (there.shape, there.dtype)
            with pytest.raises(AssertionError, match="did not load"):
                read_all(rows)


def test_a_stage_without_targets_does_not_open_their_file(config: ExperimentConfig, tmp_path: Path) -> None:
    (tmp_path / "y.npy").chmod(0o600)
    content = bytearray((tmp_path / "y.npy").read_bytes())
    content[-8:] = b"\xff" * 8  # the class of the last example is -1
    (tmp_path / "y.npy").write_bytes(content)
    assert read_all(load(config, has_targets=False).train_x).shape == (400, 3)
    with pytest.raises(ValueError, match="has the class -1"):
        load(config, has_inputs=False)


def test_reading_takes_a_bounded_scratch(make_config: MakeConfig, tmp_path: Path) -> None:
    """Not even for one call that asks for everything is there more than the scratch and the order of the rows."""
    x = np.ones((20_000, 256), np.float32)
    x[::2] = 3
    paths = {"path": save(tmp_path / "x.npy", x), "targets_path": save(tmp_path / "y.npy", np.zeros(20_000, np.int64))}
    config = make_config("npy", in_features=256, **paths)
    tracemalloc.start()
    rows = load(config, has_targets=False).train_x
    _, loading_bytes = tracemalloc.get_traced_memory()
    out = np.empty(rows.shape, rows.dtype)
    tracemalloc.reset_peak()
    before_bytes, _ = tracemalloc.get_traced_memory()
    read_rows(rows, np.arange(len(rows)), out)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert loading_bytes < 4 * BLOCK_BYTES
    assert peak_bytes - before_bytes < 4 * 2**20 < out.nbytes / 3


@pytest.mark.parametrize("way", ["each", "together"])
@pytest.mark.parametrize("dtype", ["<f8", "<f4", "|u1"])
def test_blocks_measure_what_all_at_once_does(tmp_path: Path, way: Any, dtype: str) -> None:
    """Several blocks, the last one short, and only the rows chosen."""
    random = np.random.default_rng(3)
    x = (random.random((3001, 700)) * 200 + np.arange(700) / 9).astype(dtype)
    chosen = random.random(3001) < 0.7
    chosen[:900] = False  # a whole block of which nothing is
    store = open_store(outline_file(save(tmp_path / "x.npy", x), "data.path"))
    assert x.size * 8 > 3 * BLOCK_BYTES
    scaling = measure(store, chosen, way)
    values = x[chosen].astype(np.float64)
    axis = 0 if way == "each" else None
    assert scaling is not None
    np.testing.assert_allclose(scaling.mean, values.mean(axis=axis), rtol=1e-12)
    np.testing.assert_allclose(scaling.deviation, values.std(axis=axis), rtol=1e-12)


def test_small_deviations_of_large_values_are_kept(tmp_path: Path) -> None:
    """A sum of squares less the square of a sum would give zero, or the root of a negative number."""
    x = np.array([[1e9 + 0.25], [1e9 - 0.25]] * 10)
    store = open_store(outline_file(save(tmp_path / "x.npy", x), "data.path"))
    scaling = measure(store, None, "each")
    assert scaling is not None
    assert scaling.deviation[0] == pytest.approx(0.25, rel=1e-6)


def fractions(make_config: MakeConfig, folder: Path, y: np.ndarray, **changes: Any) -> ExperimentConfig:
    x, _ = draw_table(60, 3)
    paths = {"path": save(folder / "x.npy", x), "targets_path": save(folder / "y.npy", y)}
    return make_config(
        "npy", in_features=3, out_features=2, minibatch_size=10, loss="binary_cross_entropy", **paths, **changes
    )


@pytest.mark.parametrize("value", [1.5, -0.01])
def test_a_loss_of_fractions_refuses_other_targets(make_config: MakeConfig, tmp_path: Path, value: float) -> None:
    """They were learned from without a word, and the loss fell below any bound."""
    y = np.full((60, 2), 0.5)
    y[7, 1] = value
    with pytest.raises(DataError) as caught:
        load(fractions(make_config, tmp_path, y))
    assert f"has {value} in example 7, value 1 (counted from 0), and model.loss binary_cross_entropy" in str(
        caught.value
    )
    y[7] = (0.0, 1.0)
    assert read_all(load(fractions(make_config, tmp_path, y)).train_y).max() == 1.0


def test_standardised_targets_are_no_fractions(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"remove data\.standardise_targets"):
        load(fractions(make_config, tmp_path, np.full((60, 2), 0.5), standardise_targets=True))


def test_a_loss_of_fractions_has_synthetic_targets_of_yes_and_no(make_config: MakeConfig) -> None:
    y = read_all(load(make_config("synthetic", in_features=4, out_features=3, loss="binary_cross_entropy")).train_y)
    assert set(np.unique(y)) == {0.0, 1.0}


def test_real_numbers_that_are_shipped_are_no_fractions(make_config: MakeConfig) -> None:
    config = make_config("diabetes", in_features=10, out_features=1, loss="binary_cross_entropy")
    (problem,) = check(config, file="my.yaml")
    assert (problem.key, problem.message) == (
        "model.loss",
        "is binary_cross_entropy, but diabetes has real numbers to learn; set model.loss: mse",
    )
