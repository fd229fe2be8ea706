"""Generators: literal grids, refused shapes, placements, stages that share ranks."""

import re

import pytest

from partition.errors import ScheduleError
from partition.schedule import GENERATORS, Action, Kind, generate, lower, validate
from partition.schedule.generators import fold, relabelling


def grid(name: str, num_ranks: int, num_microbatches: int, num_stages: int | None = None) -> list[str]:
    schedule = generate(name, num_ranks=num_ranks, num_microbatches=num_microbatches, num_stages=num_stages)
    return [" ".join(map(str, row)) for row in schedule.rows]


def test_gpipe_runs_all_forwards_then_all_backwards_in_increasing_order() -> None:
    assert grid("gpipe", 2, 3) == ["0F0 0F1 0F2 0B0 0B1 0B2", "1F0 1F1 1F2 1B0 1B1 1B2"]


def test_gpipe_takes_several_stages_a_rank_one_after_the_other() -> None:
    assert grid("gpipe", 2, 2, num_stages=4)[0] == "0F0 0F1 2F0 2F1 2B0 2B1 0B0 0B1"


def test_1f1b_fills_alternates_and_drains() -> None:
    assert grid("1f1b", 3, 4) == [
        "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3",
        "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3",
        "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3",
    ]


def test_1f1b_on_one_rank_is_the_sequence_of_one_device() -> None:
    assert grid("1f1b", 1, 3) == ["0F0 0B0 0F1 0B1 0F2 0B2"]


def test_1f1b_with_fewer_microbatches_than_stages() -> None:
    assert grid("1f1b", 4, 1) == ["0F0 0B0", "1F0 1B0", "2F0 2B0", "3F0 3B0"]


def test_interleaved_1f1b_takes_groups_of_microbatches_through_its_stages() -> None:
    assert grid("interleaved_1f1b", 2, 4)[1] == "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3"


def test_interleaved_1f1b_spreads_microbatches_that_are_no_multiple_of_the_ranks() -> None:
    """Five on two ranks make groups of three and two, not of two, two and one."""
    assert grid("interleaved_1f1b", 2, 5)[1].startswith("1F0 1F1 1F2 3F0 3B0 3F1 3B1 3F2 3B2 1F3")


def test_interleaved_1f1b_with_one_stage_a_rank_is_1f1b() -> None:
    assert grid("interleaved_1f1b", 4, 6, num_stages=4) == grid("1f1b", 4, 6)


def test_zb_h1_delays_w_by_the_rank() -> None:
    assert grid("zb_h1", 3, 4)[2] == "2F0 2I0 2F1 2I1 2F2 2I2 2W0 2F3 2I3 2W1 2W2 2W3"


def test_zb_h2_starts_with_more_forwards() -> None:
    assert grid("zb_h2", 3, 5)[0].startswith("0F0 0F1 0F2 0F3 0F4 0I0 0W0")


def test_zbv_places_its_stages_in_a_v() -> None:
    schedule = generate("zbv", num_ranks=3, num_microbatches=6)
    assert schedule.placement == (0, 1, 2, 2, 1, 0)
    assert schedule.stages_of(0) == (0, 5)


def test_forward_only_has_neither_backward_nor_step() -> None:
    lowered = lower(generate("forward_only", num_ranks=2, num_microbatches=2))
    assert [" ".join(map(str, row)) for row in lowered.rows] == [
        "0F0 0SEND_F0 0F1 0SEND_F1",
        "1RECV_F0 1F0 1RECV_F1 1F1",
    ]


def test_actions_print_as_stage_kind_microbatch() -> None:
    shown = [str(Action(2, Kind.F, 0)), str(Action(1, Kind.SEND_F, 3)), str(Action(0, Kind.STEP))]
    assert shown == ["2F0", "1SEND_F3", "0STEP"]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ScheduleError, match=r"'1b1f' is not known; take one of gpipe, 1f1b"):
        generate("1b1f", num_ranks=2, num_microbatches=2)


@pytest.mark.parametrize(("ranks", "microbatches"), [(0, 4), (2, 0), (-1, 1)])
def test_absurd_sizes_are_refused(ranks: int, microbatches: int) -> None:
    with pytest.raises(ScheduleError, match="at least 1 is needed"):
        generate("gpipe", num_ranks=ranks, num_microbatches=microbatches)


def test_more_actions_than_fit_are_refused_before_they_are_made() -> None:
    with pytest.raises(ScheduleError, match="make 2000000000000 actions, at most 50000000"):
        generate("gpipe", num_ranks=10**6, num_microbatches=10**6)


def test_rows_that_are_written_longer_than_they_end_up_are_counted_so() -> None:
    """V-ZB writes 2p - 1 microbatches whatever is asked for: 20000 ranks of one took minutes to cut them."""
    with pytest.raises(ScheduleError, match="40000 stages and 1 microbatches make 3200000000 actions"):
        generate("zbv", num_ranks=20_000, num_microbatches=1)


@pytest.mark.parametrize(
    ("name", "stages", "reason"),
    [
        ("1f1b", 8, "1 stage on every rank: got 8 stages for 4 ranks; .*8 stages suit gpipe, interleaved_1f1b, zbv"),
        ("zbv", 4, "2 stages on every rank: got 4 stages for 4 ranks; take 8 stages"),
        ("interleaved_1f1b", 6, "equally many stages on every rank: got 6 stages for 4 ranks"),
        ("gpipe", 0, "got 0 stages for 4 ranks"),
    ],
)
def test_a_shape_that_does_not_suit_is_answered_with_what_does(name: str, stages: int, reason: str) -> None:
    with pytest.raises(ScheduleError, match=reason):
        generate(name, num_ranks=4, num_stages=stages, num_microbatches=8)


def refusal(name: str, ranks: int, stages: int) -> str | None:
    """Why a shape is refused; None where it is not."""
    try:
        generate(name, num_ranks=ranks, num_stages=stages, num_microbatches=3)
    except ScheduleError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", GENERATORS)
def test_every_shape_is_defined_or_answered_with_one_that_is(name: str) -> None:
    """Up to three stages a rank and what lies between."""
    for ranks in range(1, 9):
        for stages in range(3 * ranks + 1):
            reason = refusal(name, ranks, stages)
            if reason is not None:
                advised = re.search(rf"got {stages} stages for {ranks} ranks; take (\d+) stages", reason)
                assert advised is not None, reason
                assert refusal(name, ranks, int(advised[1])) is None


@pytest.mark.parametrize("placement", [(0, 0, 1, 1), (1, 0), (0, 1, 1, 0), (2, 0, 1, 0), (0,) * 3])
@pytest.mark.parametrize("name", [name for name, made in GENERATORS.items() if made.usual_stages_per_rank == 1])
def test_schedules_of_one_stage_a_rank_take_any_placement(name: str, placement: tuple[int, ...]) -> None:
    for microbatches in (1, 4, 7):
        schedule = generate(name, num_ranks=max(placement) + 1, num_microbatches=microbatches, placement=placement)
        assert schedule.placement == placement
        validate(schedule)
        validate(lower(schedule))


def test_ranks_may_be_renamed() -> None:
    own = generate("zbv", num_ranks=2, num_microbatches=3)
    renamed = generate("zbv", num_ranks=2, num_microbatches=3, placement=(1, 0, 0, 1))
    assert renamed.rows == own.rows[::-1]
    validate(lower(renamed))


@pytest.mark.parametrize(
    ("placement", "reason"),
    [((0, 1, 0, 1), r"on ranks \[0, 1, 1, 0\]"), ((0, 1, 3, 1), "ranks 0 to 1"), ((0, 0, 0, 0), "every rank a stage")],
)
def test_a_placement_that_cannot_be_is_refused(placement: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ScheduleError, match=reason):
        generate("zbv", num_ranks=2, num_microbatches=3, placement=placement)


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
