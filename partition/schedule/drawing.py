"""The rows of a schedule around one place, for error messages."""

from __future__ import annotations

from partition.schedule.actions import Schedule

_AROUND = 6
"""actions shown on either side of a marked place"""
_RANKS_AROUND = 4


def draw_around(schedule: Schedule, rank: int, position: int) -> str:
    """The rows near one place, counted in actions, with the place in brackets.

    rank 0     0F0   0F1   0B1   0B0
    rank 1     1F0   1F1  [1B1]  1B0
    """
    first = max(0, position - _AROUND)
    ranks = range(max(0, rank - _RANKS_AROUND), min(schedule.num_ranks, rank + _RANKS_AROUND + 1))
    cells = {shown: _cells(schedule, shown, first, position if shown == rank else -1) for shown in ranks}
    width = max((len(cell) for row in cells.values() for cell in row), default=0)
    label = len(str(ranks[-1]))
    lead = " ..." if first else ""
    return "\n".join(
        f"rank {shown:>{label}}{lead} " + " ".join(f"{cell:<{width}}" for cell in row).rstrip()
        for shown, row in cells.items()
    )


def _cells(schedule: Schedule, rank: int, first: int, marked: int) -> list[str]:
    """Text of each action of a row from `first` on; the marked one in brackets."""
    row = schedule.rows[rank]
    cells = [f" {row[i]} " for i in range(first, min(len(row), first + 2 * _AROUND + 1))]
    if first <= marked < len(row):
        cells[marked - first] = f"[{row[marked]}]"
    elif marked == len(row):
        cells.append("[end of row]")
    return cells
