"""Arrays of moments say of every stage what the moments say one by one."""

from __future__ import annotations

import pytest

from partition.plan import Search
from partition.plan.layout import Layout
from partition.plan.moment_table import MomentTable
from tests.runtime.conftest import build_config

DEPTH = 11


@pytest.mark.parametrize(
    ("schedule", "num_ranks", "num_stages"),
    [("gpipe", 3, 3), ("1f1b", 3, 3), ("zb_h1", 2, 2), ("zb_h2", 3, 3), ("interleaved_1f1b", 2, 4), ("zbv", 3, 6)],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_bytes_of_a_stage_are_those_of_each_moment(
    schedule: str, num_ranks: int, num_stages: int, optimizer: str
) -> None:
    """Of two sizes of microbatches, on any layers, recomputed or not, for the last stage and the first."""
    config = build_config(features=(6, *(9,) * (DEPTH - 2), 7, 5), optimizer={"name": optimizer, "lr": 0.1})
    model = Search(config).model
    layout = Layout.of(schedule, num_ranks, (5, 5, 4, 4), num_stages)
    for index, rank in enumerate(layout.schedule.placement):
        place = layout.schedule.stages_of(rank).index(index)
        for first, last in ((0, 1), (2, 5), (3, 3), (DEPTH - 2, DEPTH - 1)):
            stage = model.stage(first, last)
            occupancy = layout.occupancy(stage)
            one_by_one = [occupancy.bytes_at(moment[place]) for moment in layout.moments[rank]]
            shared = stage.shared_bytes if place else 0
            assert list(layout.stage_bytes(index, stage)) == [of - shared for of in one_by_one]
            assert layout.moment_tables[index].peak_of(occupancy) == max(one_by_one)


def test_equal_moments_stand_once_and_instants_say_which() -> None:
    layout = Layout.of("zbv", 3, (5, 5, 4, 4), 6)
    for index, rank in enumerate(layout.schedule.placement):
        place = layout.schedule.stages_of(rank).index(index)
        own = [moment[place] for moment in layout.moments[rank]]
        table = MomentTable.of(own)
        assert len(table.counts) == len(set(own)) < len(own)
        distinct = list(dict.fromkeys(own))
        assert [distinct[of] for of in table.place] == own
