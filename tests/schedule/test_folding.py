"""Folding: stages of a schedule with one stage a rank share ranks."""

from partition.schedule import generate
from partition.schedule.folding import fold, relabelling


def test_two_stages_on_one_rank_go_back_as_soon_as_they_can() -> None:
    folded = fold(generate("1f1b", num_ranks=2, num_microbatches=2), (0, 0))
    assert " ".join(map(str, folded.rows[0])) == "0F0 1F0 1B0 0F1 0B0 1F1 1B1 0B1"


def test_each_stage_keeps_its_own_order() -> None:
    spread = generate("zb_h2", num_ranks=4, num_microbatches=6)
    folded = fold(spread, (0, 1, 1, 0))
    for stage, row in enumerate(spread.rows):
        rank = folded.rows[folded.placement[stage]]
        assert tuple(action for action in rank if action.stage == stage) == row


def test_only_a_renaming_of_ranks_is_a_relabelling() -> None:
    schedule = generate("interleaved_1f1b", num_ranks=2, num_microbatches=2)
    assert relabelling(schedule, (0, 1, 1, 0)) is None
    assert relabelling(schedule, (0, 0, 0, 0)) is None
    renamed = relabelling(schedule, (1, 0, 1, 0))
    assert renamed is not None
    assert renamed.rows == schedule.rows[::-1]
