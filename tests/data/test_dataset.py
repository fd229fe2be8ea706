"""The arrays: what they hold, that they are the same every time, and that nothing held out is trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.data.dataset import Dataset, load
from partition.data.sources import read
from partition.errors import PartitionError

MakeConfig = Callable[..., ExperimentConfig]
SOURCES = [("digits", 64), ("mnist5k", 784), ("synthetic", 20)]


def digest(dataset: Dataset) -> list[bytes]:
    return [array.tobytes() for array in (dataset.train_x, dataset.train_y, dataset.test_x, dataset.test_y)]


@pytest.mark.parametrize(("source", "in_features"), SOURCES)
@pytest.mark.parametrize("compute", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_types_and_scale(make_config: MakeConfig, source: str, in_features: int, compute: str, loss: str) -> None:
    dataset = load(make_config(source, in_features=in_features, compute=compute, loss=loss))
    for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)):
        assert x.dtype == compute
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous
        assert abs(float(x.mean())) < 0.05
        assert float(x.std()) == pytest.approx(1, abs=0.05)
        assert y.dtype == ("int64" if loss == "cross_entropy" else compute)
        assert y.shape == ((len(x),) if loss == "cross_entropy" else (len(x), 10))


@pytest.mark.parametrize(("source", "in_features"), SOURCES)
def test_only_the_seed_decides(make_config: MakeConfig, source: str, in_features: int) -> None:
    def load_with(minibatch_size: int, seed: int) -> list[bytes]:
        return digest(load(make_config(source, in_features=in_features, minibatch_size=minibatch_size, seed=seed)))

    np.random.seed(1)
    first = load_with(minibatch_size=100, seed=3)
    np.random.seed(2)
    assert load_with(minibatch_size=150, seed=3) == first
    assert load_with(minibatch_size=100, seed=4) != first


def test_the_split_keeps_its_bits(make_config: MakeConfig) -> None:
    """A change of these numbers changes every published figure: it is one to announce."""
    dataset = load(make_config("digits", seed=0))
    assert dataset.test_y[:12].tolist() == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1, 1, 9]
    assert load(make_config("synthetic", in_features=4, seed=0)).train_y[:12].tolist() == [
        8,
        8,
        7,
        6,
        8,
        8,
        6,
        6,
        3,
        1,
        7,
        8,
    ]


def count_rows(x: np.ndarray) -> dict[bytes, int]:
    rows, counts = np.unique(x, axis=0, return_counts=True)
    return {row.tobytes(): int(count) for row, count in zip(rows, counts, strict=True)}


@pytest.mark.parametrize(("source", "in_features"), SOURCES)
def test_nothing_held_out_is_trained_on(make_config: MakeConfig, source: str, in_features: int) -> None:
    dataset = load(make_config(source, in_features=in_features))
    trained, held_out = count_rows(dataset.train_x), count_rows(dataset.test_x)
    assert not trained.keys() & held_out.keys()


@pytest.mark.parametrize("source", ["digits", "mnist5k"])
def test_every_image_is_used_once_with_its_class(make_config: MakeConfig, source: str) -> None:
    features, classes = read(source)
    dataset = load(make_config(source, in_features=features.shape[1], compute="float64"))
    x = np.concatenate([dataset.train_x, dataset.test_x])
    y = np.concatenate([dataset.train_y, dataset.test_y])
    # Undoing the scaling from the two ends of its range gives back the pixels.
    pixels = np.rint((x - x.min()) / (x.max() - x.min()) * features.max()).astype(np.uint8)
    used = np.concatenate([pixels, y[:, None].astype(np.uint8)], axis=1)
    given = np.concatenate([features, classes[:, None].astype(np.uint8)], axis=1)
    assert count_rows(used) == count_rows(given)


def test_classes_sorted_in_the_file_are_mixed_in_both_parts(make_config: MakeConfig) -> None:
    dataset = load(make_config("mnist5k", in_features=784))
    assert np.bincount(dataset.train_y, minlength=10).min() > 350
    assert np.bincount(dataset.test_y, minlength=10).min() > 50
    assert len(set(dataset.train_y[:100].tolist())) == 10


def test_the_scale_knows_nothing_of_the_held_out_images(make_config: MakeConfig) -> None:
    train_x = load(make_config("digits", compute="float64")).train_x
    assert train_x.mean() == pytest.approx(0, abs=1e-12)
    assert train_x.std() == pytest.approx(1, abs=1e-12)


def test_a_squared_error_gets_one_hot_rows_as_wide_as_the_output(make_config: MakeConfig) -> None:
    classes = load(make_config("digits", out_features=12)).train_y
    targets = load(make_config("digits", out_features=12, loss="mse")).train_y
    assert targets.shape == (len(classes), 12)
    assert (targets.argmax(axis=1) == classes).all()
    assert (targets.sum(axis=1) == 1).all()
    assert set(np.unique(targets)) == {0, 1}


def test_synthetic_targets_can_be_learned(make_config: MakeConfig) -> None:
    dataset = load(make_config("synthetic", in_features=5, out_features=3, loss="mse", compute="float64"))
    teacher, *_ = np.linalg.lstsq(dataset.train_x, dataset.train_y, rcond=None)
    np.testing.assert_allclose(dataset.test_x @ teacher, dataset.test_y, atol=1e-12)
    classes = load(make_config("synthetic", in_features=5, out_features=3, compute="float64")).test_y
    assert (dataset.test_y.argmax(axis=1) == classes).all()
    assert len(set(classes.tolist())) == 3


def test_both_precisions_get_the_same_synthetic_examples(make_config: MakeConfig) -> None:
    single = load(make_config("synthetic", compute="float32", minibatch_size=3000))
    double = load(make_config("synthetic", compute="float64", minibatch_size=3000))
    assert (double.train_x.astype(np.float32) == single.train_x).all()


def test_examples_beyond_this_machine_are_told_in_one_line(make_config: MakeConfig) -> None:
    config = make_config("synthetic", in_features=2**20, minibatch_size=2**28)
    with pytest.raises(PartitionError, match=r"1342177280 examples of 1048576 features take .* set data.num_examples"):
        load(config)
