"""What is measured in place of a network: which sizes, and the same on all ranks whatever each has free."""

from __future__ import annotations

import pytest

from partition.config import ExperimentConfig
from partition.errors import PartitionError
from partition.runtime import stand_in
from partition.runtime.joining import join, leave
from partition.runtime.process import Process
from partition.runtime.processes import ProcessWorld
from partition.runtime.profiling import measure_layers
from partition.runtime.stand_in import candidates, fitting_sizes, smallest_share, stand_in_search
from partition.runtime.world import LocalWorld
from tests.runtime.conftest import build_config
from tests.runtime.ranks import run_ranks

SIZES = [1, 2, 8]


def limits(config: ExperimentConfig, rows: int) -> list[int]:
    """The bytes that each of the two steps of a size takes, full backwards first."""
    found = candidates(stand_in_search(config, 2**40), rows)
    return [candidate.predicted.peak_bytes[0] for candidate in found if candidate.predicted]


@pytest.mark.parametrize("rows", SIZES)
def test_a_size_is_measured_with_those_of_its_steps_that_fit(rows: int) -> None:
    """Near the limit only full backwards fit: without them the largest size was read off the line through smaller."""
    config = build_config()
    full, halves = limits(config, rows)
    assert full <= halves
    for enough, schedules in ((halves, ["1f1b", "zb_h1"]), (full, ["1f1b", "zb_h1"][: 1 + (full == halves)])):
        search = stand_in_search(config, enough)
        assert [candidate.schedule for candidate in candidates(search, rows)] == schedules
        assert rows in fitting_sizes(search, SIZES)
    if rows > 1:
        assert rows not in fitting_sizes(stand_in_search(config, full - 1), SIZES)


def test_what_is_asked_of_the_layers_and_devices_of_the_experiment_is_not_asked_of_it() -> None:
    """A profile of an experiment with pins was refused: the stand-in has one device, and fewer layers."""
    planner = {"keep_together": ((0, 3),), "pinned": ({"layers": (0, 0), "device": 3},)}
    assert stand_in_search(build_config(planner=planner), 2**40).constraints.is_free


def test_both_steps_of_a_size_are_as_they_run() -> None:
    config = build_config()
    found = [
        [(one.schedule, one.num_microbatches) for one in candidates(stand_in_search(config, 2**40), rows)]
        for rows in (1, config.training.minibatch_size)
    ]
    assert found == [[("1f1b", 8), ("zb_h1", 8)], [("1f1b", 1), ("zb_h1", 1)]]


def test_where_not_even_one_example_fits_the_message_says_what_lacks() -> None:
    config = build_config()
    too_little = min(limits(config, 1)) - 1
    with pytest.raises(PartitionError) as caught:
        measure_layers(config, LocalWorld(1, 1), too_little)
    message = str(caught.value)
    assert "layers cannot be measured here: a step of 8 examples, 1 at a time, needs " in message
    assert message.endswith("too much); free memory, or measure a smaller model")


def shares() -> int:
    process = Process.of_environment()
    assert process is not None
    join(process, 20.0)
    world = ProcessWorld(process, num_replicas=1, is_cuda=False, timeout_s=20.0)
    stand_in.free_bytes = lambda: (8 - process.rank) * 2**20
    try:
        return smallest_share(world, 2)
    finally:
        world.close()
        leave()


def test_all_ranks_have_the_share_of_the_one_that_has_least() -> None:
    """Each looked for itself, and where they came to unlike sizes, the others waited for a rank that had ended."""
    assert run_ranks(2, shares) == [7 * 2**20 // 2 * 3 // 4] * 2


def test_a_host_is_shared_by_its_own_ranks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "free_bytes", lambda: 4 * 2**20)
    assert smallest_share(LocalWorld(1, 1), 4) == 3 * 2**18
