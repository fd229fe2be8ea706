"""Whether a schedule is complete, in order, and can run whatever the way in which messages are sent.

Checked in turn, each failure naming rank, position and action and drawing the rows around it:
 1. every action stands on the rank of its stage and within the numbers of stages and microbatches;
 2. every stage runs F once for each microbatch, and either B once or I and W once each; and R, between F and these, for
    each microbatch or for none;
 3. each stage adds its gradients in increasing microbatch order (the order that keeps results bit-identical);
 4. the computations can run: none waits for one that comes after it;
 5. if lowered: every message is sent once and received once, after its cause and before its use, and the rows
    run to their ends under the three semantics of `partition.schedule.deadlock`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from partition.errors import ScheduleError
from partition.schedule.actions import (
    BACKWARD,
    MESSAGES,
    RECEIVES,
    SENDS,
    Action,
    Kind,
    Schedule,
    matching_receive,
)
from partition.schedule.deadlock import Semantics, find_crossed, find_deadlock
from partition.schedule.drawing import draw_around


class Place(NamedTuple):
    """Where an action stands."""

    rank: int
    position: int


def validate(schedule: Schedule, *, is_order_required: bool = True) -> None:
    """Raise ScheduleError for the first thing wrong, with rank, position and action; return None if all is well.

    `is_order_required=False` allows gradients to be added in any order: such a schedule runs, but its results
    are not bit-identical to those of one device.
    """
    places = _place_all(schedule)
    _check_complete(schedule, places)
    if is_order_required:
        _check_accumulation_order(schedule)
    _check_steps(schedule, places)
    messages = [action for action in places if action.kind in MESSAGES]
    if messages:
        _check_messages(schedule, places)
    _check_runs(schedule, has_messages=bool(messages))


def refuse(schedule: Schedule, place: Place, reason: str) -> NoReturn:
    """Raise the error that says what is wrong at one place and draws the rows around it."""
    row = schedule.rows[place.rank]
    action = row[place.position] if place.position < len(row) else "end of row"
    raise ScheduleError(
        f"schedule {schedule.name}: rank {place.rank}, position {place.position}, {action}: {reason}\n"
        + draw_around(schedule, place.rank, place.position),
        rank=place.rank,
        position=place.position,
        action=str(action),
    )


def _walk(schedule: Schedule) -> Iterator[tuple[Place, Action]]:
    for rank, row in enumerate(schedule.rows):
        for position, action in enumerate(row):
            yield Place(rank, position), action


def _place_all(schedule: Schedule) -> dict[Action, Place]:
    """Place of every action; refuses the wrong rank, numbers out of range and doubles."""
    if len(schedule.placement) != schedule.num_stages:
        raise ScheduleError(
            f"schedule {schedule.name}: {schedule.num_stages} stages, but ranks are given for {len(schedule.placement)}"
        )
    places: dict[Action, Place] = {}
    for place, action in _walk(schedule):
        if not 0 <= action.stage < schedule.num_stages:
            refuse(schedule, place, f"there are stages 0 to {schedule.num_stages - 1}")
        if action.microbatch >= schedule.num_microbatches:
            refuse(schedule, place, _beyond(schedule, action.stage))
        if schedule.placement[action.stage] != place.rank:
            refuse(schedule, place, f"stage {action.stage} belongs to rank {schedule.placement[action.stage]}")
        if action in places and action.kind not in (Kind.UNSHARD, Kind.RESHARD):
            refuse(schedule, place, f"it stands at position {places[action].position} already")
        places[action] = place
    return places


def _beyond(schedule: Schedule, stage: int) -> str:
    """Why a microbatch is out of range, and which forwards the stage lacks instead."""
    present = {action.microbatch for _, action in _walk(schedule) if action[:2] == (stage, Kind.F)}
    lacking = [Action(stage, Kind.F, index) for index in range(schedule.num_microbatches) if index not in present]
    missing = f"; {', '.join(map(str, lacking[:4]))} is missing" if lacking else ""
    return f"there are microbatches 0 to {schedule.num_microbatches - 1}{missing}"


def _check_complete(schedule: Schedule, places: dict[Action, Place]) -> None:
    for stage, rank in enumerate(schedule.placement):
        end = Place(rank, len(schedule.rows[rank]))
        for microbatch in range(schedule.num_microbatches):
            if Action(stage, Kind.F, microbatch) not in places:
                refuse(schedule, end, f"{Action(stage, Kind.F, microbatch)} is missing: the stage never runs it")
            _check_backward(schedule, places, stage, microbatch, end)
            if stage in schedule.recomputed_stages:
                _check_recomputation(schedule, places, stage, microbatch, end)


def _check_backward(schedule: Schedule, places: dict[Action, Place], stage: int, microbatch: int, end: Place) -> None:
    """Either B, or both I and W; none at all in a forward-only schedule."""
    full, first, second = (Action(stage, kind, microbatch) for kind in (Kind.B, Kind.I, Kind.W))
    present = [action for action in (full, first, second) if action in places]
    if schedule.is_forward_only:
        if present:
            refuse(schedule, places[present[0]], "a forward-only schedule has no backward")
    elif full in places and len(present) > 1:
        reason = f"{full} is the full backward and holds {present[1]} (in an older dialect B was the input gradient)"
        refuse(schedule, places[present[1]], reason)
    elif not present:
        refuse(schedule, end, f"{full} is missing: the stage runs neither {full} nor {first} and {second}")
    elif full not in places and len(present) == 1:
        refuse(schedule, places[present[0]], f"{second if first in places else first} is missing")


def _check_recomputation(
    schedule: Schedule, places: dict[Action, Place], stage: int, microbatch: int, end: Place
) -> None:
    """R after F and before the backward, for every microbatch of a stage that has any."""
    again, forward = Action(stage, Kind.R, microbatch), Action(stage, Kind.F, microbatch)
    if again not in places:
        refuse(schedule, end, f"{again} is missing: the stage recomputes others, and keeps no more of this one")
    if schedule.is_forward_only:
        refuse(schedule, places[again], "a forward-only schedule has no backward to recompute for")
    if places[again] < places[forward]:
        refuse(schedule, places[again], f"it comes before {forward}, which it runs again")
    backward = next(action for kind in (Kind.B, Kind.I) if (action := Action(stage, kind, microbatch)) in places)
    if places[backward] < places[again]:
        refuse(schedule, places[again], f"it comes after {backward}, which needs what it makes")


def has_accumulation_order(schedule: Schedule) -> bool:
    """Whether every stage adds its gradients in increasing microbatch order, as one device does."""
    try:
        _check_accumulation_order(schedule)
    except ScheduleError:
        return False
    return True


def _check_accumulation_order(schedule: Schedule) -> None:
    latest = [-1] * schedule.num_stages
    for rank, row in enumerate(schedule.rows):
        for position, (stage, kind, microbatch) in enumerate(row):
            if kind in (Kind.B, Kind.W):
                if latest[stage] > microbatch:
                    reason = f"gradients must be added in increasing microbatch order, {latest[stage]} came before"
                    refuse(schedule, Place(rank, position), reason)
                latest[stage] = microbatch


def _check_steps(schedule: Schedule, places: dict[Action, Place]) -> None:
    """All stages step or none, and nothing but steps may follow the first on a rank."""
    steps = {action: place for action, place in places.items() if action.kind is Kind.STEP}
    for stage in range(schedule.num_stages) if steps else ():
        rank = schedule.placement[stage]
        if Action(stage, Kind.STEP) not in steps:
            refuse(schedule, Place(rank, len(schedule.rows[rank])), f"{Action(stage, Kind.STEP)} is missing")
    for step, place in steps.items():
        row = schedule.rows[place.rank]
        for position in range(place.position + 1, len(row)):
            if row[position].kind not in (Kind.STEP, Kind.RESHARD):
                refuse(schedule, Place(place.rank, position), f"it comes after {step}, which ends the rank's work")


def _check_messages(schedule: Schedule, places: dict[Action, Place]) -> None:
    """Every result that another rank needs is sent and received; nothing else is."""
    expected: set[Action] = set()
    for action, place in places.items():
        send = schedule.feeds(action)
        if send is not None:
            expected |= {send, matching_receive(send)}
            _check_message(schedule, places, action, send, place)
    for action, place in places.items():
        if action.kind in SENDS | RECEIVES and action not in expected:
            refuse(schedule, place, "no stage on another rank is fed by it")


def _check_message(schedule: Schedule, places: dict[Action, Place], cause: Action, send: Action, place: Place) -> None:
    receive = matching_receive(send)
    if send not in places:
        refuse(schedule, place, f"its result is needed on another rank, but {send} is missing")
    if receive not in places:
        refuse(schedule, places[send], f"{receive} is missing on rank {schedule.placement[receive.stage]}")
    if places[send].position < place.position:
        refuse(schedule, places[send], f"it comes before {cause}, whose result it sends")
    for use in _uses(receive):
        if use in places and places[use].position < places[receive].position:
            refuse(schedule, places[use], f"it comes before {receive}, which brings what it needs")


def _uses(receive: Action) -> list[Action]:
    kinds = (Kind.F,) if receive.kind is Kind.RECV_F else tuple(BACKWARD)
    return [Action(receive.stage, kind, receive.microbatch) for kind in kinds]


def _check_runs(schedule: Schedule, *, has_messages: bool) -> None:
    """Run the rows. What runs when sends wait for their receives also runs when they are buffered."""
    semantics = Semantics.RENDEZVOUS if has_messages else Semantics.UNSENT
    deadlock = find_deadlock(schedule, semantics)
    if deadlock is None and has_messages:
        semantics = Semantics.FIFO
        deadlock = find_crossed(schedule)
    elif deadlock is not None and has_messages and find_deadlock(schedule, Semantics.BUFFERED):
        semantics = Semantics.BUFFERED
        deadlock = find_deadlock(schedule, semantics)
    if deadlock is not None:
        refuse(schedule, Place(deadlock.rank, deadlock.position), f"{deadlock.reason} ({semantics.value})")
