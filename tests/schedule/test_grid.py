"""The drawn grid, and the grids drawn in docstrings."""

import pytest

from partition.schedule import GENERATORS, draw, from_text, generate, lower


@pytest.mark.parametrize(
    ("name", "ranks", "microbatches"),
    [
        ("forward_only", 2, 3),
        ("gpipe", 3, 3),
        ("1f1b", 3, 4),
        ("zb_h1", 3, 4),
        ("zb_h2", 3, 5),
        ("interleaved_1f1b", 2, 2),
        ("zbv", 2, 3),
    ],
)
def test_what_a_generator_draws_is_what_it_makes(name: str, ranks: int, microbatches: int) -> None:
    documented = GENERATORS[name].row.__doc__ or ""
    for line in draw(generate(name, num_ranks=ranks, num_microbatches=microbatches)).splitlines():
        assert line in documented


def test_messages_and_steps_are_not_drawn() -> None:
    schedule = generate("1f1b", num_ranks=2, num_microbatches=2)
    lines = ["rank 0  F0 F1 .. .. B0 -- .. B1 --", "rank 1  .. F0 B0 -- F1 B1 -- .. .."]
    assert draw(schedule).splitlines() == draw(lower(schedule)).splitlines() == lines
    assert all(line in (draw.__doc__ or "") for line in lines)


def test_late_ticks_are_cut_off() -> None:
    assert draw(from_text("0F0,0B0,0F1,0B1\n"), most_ticks=3) == "rank 0  F0 B0 -- ..."
