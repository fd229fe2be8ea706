"""The text form of torch.distributed.pipelining: one row a rank, comma-separated, no header.

    0F0,0F1,0B0,0B1
    1F0,1B0,1F1,1B1

Which rank holds a stage is read off the rows. Optimizer steps are not part of the form. A pair such as
``(0F7;7B3)OVERLAP_F_B`` is read as its two actions one after the other, which is how one device runs them.
"""

from __future__ import annotations

import re
from collections import Counter

from partition.errors import ScheduleError
from partition.schedule.actions import COMPUTE, MESSAGES, NO_MICROBATCH, OF_STAGE, Action, Kind, Schedule
from partition.schedule.lowering import lower

_ACTION = re.compile(r"([0-9]{1,9})([A-Z][A-Z_]*)([0-9]{1,9})?", re.ASCII)
# Not splitlines: a Unicode separator within a line ends no row.
_LINE_END = re.compile(r"\r\n|\r|\n")
_PAIR = re.compile(r"\(([^()]*)\)OVERLAP_F_B")
_MAXIMUM_STAGES = 65_536


def to_text(schedule: Schedule, lowered: bool = False) -> str:
    """Write one line a rank; with `lowered` also the messages, added here if the rows do not hold them yet."""
    if lowered and not schedule.is_lowered:
        schedule = lower(schedule)
    holds_messages = any(action.kind in MESSAGES for row in schedule.rows for action in row)
    is_shown = COMPUTE if holds_messages and not lowered else frozenset(Kind) - {Kind.STEP}
    lines = (",".join(str(action) for action in row if action.kind in is_shown) for row in schedule.rows)
    return "".join(f"{line}\n" for line in lines)


def from_text(text: str, *, name: str = "file", is_forward_only: bool = False) -> Schedule:
    """Read a schedule, lowered or not; whether it is complete and can run is for `validate` to say.

    Raises ScheduleError naming rank and cell where the text is not a schedule.
    """
    lines = _LINE_END.split(text.removeprefix("\ufeff").rstrip())
    rows = tuple(_parse_row(line, rank) for rank, line in enumerate(lines))
    if not any(rows):
        raise ScheduleError("the text holds no action; write one row a rank, such as 0F0,0F1,0B0,0B1")
    empty = next((rank for rank, row in enumerate(rows) if not row), None)
    if empty is not None:
        raise ScheduleError(f"rank {empty} has no action; every line is the row of a rank, so leave out empty lines")
    placement = _read_placement(rows)
    return Schedule(
        name=name,
        num_stages=len(placement),
        num_microbatches=_count_microbatches(rows),
        placement=placement,
        rows=rows,
        is_forward_only=is_forward_only,
    )


def _parse_row(line: str, rank: int) -> tuple[Action, ...]:
    row: list[Action] = []
    for column, cell in enumerate(line.split(",")):
        pair = _PAIR.fullmatch(cell.strip())
        for part in pair[1].split(";") if pair else [cell]:
            if part.strip():
                row.append(_parse_action(part.strip(), rank, column))
    return tuple(row)


def _parse_action(cell: str, rank: int, column: int) -> Action:
    match = _ACTION.fullmatch(cell)
    if match is None:
        raise _refusal(cell, rank, column, "is not an action; write stage, kind, microbatch, such as 2F0")
    stage, kind_text, microbatch = match.groups()
    if kind_text == "BW":
        older = (
            "is the older dialect, in which BW is the full backward and B the input gradient; "
            "write B for the full backward, I for the input gradient, W for the weight gradient"
        )
        raise _refusal(cell, rank, column, older)
    if kind_text not in Kind.__members__ or kind_text == Kind.STEP:
        readable = ", ".join(kind for kind in Kind if kind is not Kind.STEP)
        raise _refusal(cell, rank, column, f"has kind {_short(kind_text)}; take one of {readable}")
    kind = Kind(kind_text)
    if (microbatch is None) is not (kind in OF_STAGE):
        wanted = "carries no microbatch" if kind in OF_STAGE else "needs a microbatch"
        raise _refusal(cell, rank, column, wanted)
    return Action(int(stage), kind, NO_MICROBATCH if microbatch is None else int(microbatch))


def _refusal(cell: str, rank: int, column: int, wrong: str) -> ScheduleError:
    """The error of one cell; `position` counts cells from 0, as it counts actions."""
    shown = _short(cell)
    message = f"rank {rank}, cell {column + 1}: {shown!r} {wrong}"
    return ScheduleError(message, rank=rank, position=column, action=shown)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


def _count_microbatches(rows: tuple[tuple[Action, ...], ...]) -> int:
    """As many as most stages run forward, so that a stage that lacks one or runs one too many is found out."""
    forwards = {(action.stage, action.microbatch) for row in rows for action in row if action.kind is Kind.F}
    tally = Counter(Counter(stage for stage, _ in forwards).values())
    return max(tally, key=lambda count: (tally[count], count), default=1)


def _read_placement(rows: tuple[tuple[Action, ...], ...]) -> tuple[int, ...]:
    """Rank of each stage; every stage up to the highest named must stand on exactly one rank."""
    owner: dict[int, int] = {}
    for rank, row in enumerate(rows):
        for position, action in enumerate(row):
            if owner.setdefault(action.stage, rank) != rank:
                raise ScheduleError(
                    f"rank {rank}, position {position}, {action}: stage {action.stage} runs on rank "
                    f"{owner[action.stage]} too; a stage belongs to one rank"
                )
    highest = max(owner)
    if highest >= _MAXIMUM_STAGES:
        raise ScheduleError(f"stage {highest} is named; at most {_MAXIMUM_STAGES} stages are read")
    missing = next((stage for stage in range(highest) if stage not in owner), None)
    if missing is not None:
        raise ScheduleError(f"stage {highest} is named but no row runs stage {missing}; number stages from 0")
    return tuple(owner[stage] for stage in range(highest + 1))
