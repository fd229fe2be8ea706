"""An experiment with one thing changed is the experiment that one would have written."""

from __future__ import annotations

import pytest

from partition.config import ExperimentConfig
from partition.plan import Candidate, Search, compare
from partition.plan.variation import Quantity, fits

from .conftest import build_config, with_memory


def varied(config: ExperimentConfig, name: str, factor: float) -> tuple[Candidate, ...]:
    variation = Quantity(search=Search(config), name=name).at(factor)
    assert variation is not None
    return variation.search().candidates()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("link_bandwidth", {"cluster": {"links": {"intra_node": {"bytes_per_s": 5e7, "latency_s": 1e-5}}}}),
        ("minibatch_size", {"training": {"minibatch_size": 11}}),
    ],
)
def test_it_is_priced_as_written(name: str, changes: dict[str, dict[str, object]]) -> None:
    assert varied(build_config(), name, 0.5) == Search(build_config(**changes)).candidates()


def test_memory_is_that_of_every_device() -> None:
    config = with_memory(build_config(), 9000, 8000)
    assert varied(config, "memory", 0.75) == Search(with_memory(config, 6750, 6000)).candidates()


def test_sizes_that_are_no_longer_smaller_are_dropped() -> None:
    config = build_config(planner={"minibatch_sizes": (11, 4)})
    assert {one.minibatch_size for one in varied(config, "minibatch_size", 0.5)} == {11, 4}


def test_a_gpu_without_room_for_its_driver_is_none() -> None:
    gpu = {"name": "A100-SXM-80GB"}
    base = build_config()
    config = base.model_copy(update={"cluster": type(base.cluster).model_validate({"devices": (gpu,)})})
    quantity = Quantity(search=Search(config), name="memory")
    assert quantity.at(0.001) is None
    assert quantity.at(0.5) is not None
    assert quantity.figure(0.5) == int(79.1 * 2**30) // 2


def test_a_candidate_fits_where_its_bytes_do() -> None:
    config = build_config(planner={"strategies": ("whole",)})
    (whole,) = compare(config).candidates
    assert whole.predicted is not None
    (peak,) = whole.predicted.peak_bytes
    for limit, expected in ((peak, True), (peak - 1, False)):
        assert fits(whole, Search(with_memory(config, limit)).cluster) is expected
