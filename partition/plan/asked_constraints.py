"""Constraints as they are written, by index or name, held against the layers and devices that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from partition.config import PlannerConfig
from partition.errors import PartitionError
from partition.plan.constraints import Constraints, Pin, Run, device_in_words

IndexOrName = int | str
Ends = tuple[IndexOrName, IndexOrName]


@dataclass(frozen=True, kw_only=True)
class Known:
    """The layers and devices that constraints may name."""

    num_layers: int
    layer_names: Sequence[str]
    """Of a table; none of a network."""
    device_names: Sequence[str]


def constraints_of(planner: PlannerConfig, known: Known) -> Constraints:
    """Those of a planner section; raises PartitionError for what is not there, and what nothing can honour."""
    together = [(f"planner.keep_together.{index}", run) for index, run in enumerate(planner.keep_together or ())]
    pins = [(f"planner.pinned.{index}", pin.layers, pin.device) for index, pin in enumerate(planner.pinned or ())]
    return read_constraints(together, pins, known)


def read_constraints(
    together: Sequence[tuple[str, Ends]], pins: Sequence[tuple[str, Ends, IndexOrName]], known: Known
) -> Constraints:
    """Runs and pins, each after where it was written, which messages name."""
    constraints = Constraints(
        num_layers=known.num_layers,
        together=tuple(_together(place, ends, known) for place, ends in together),
        pins=tuple(Pin(_run(place, ends, known), _device(place, device, known)) for place, ends, device in pins),
    )
    _check_devices([place for place, *_ in pins], constraints, known)
    return constraints


def _together(place: str, ends: Ends, known: Known) -> Run:
    run = _run(place, ends, known)
    if run.first_layer == run.last_layer:
        raise PartitionError(
            f"{place}: {run.in_words} is alone, nothing is kept together; give the first and the last of several layers"
        )
    return run


def _run(place: str, ends: Ends, known: Known) -> Run:
    first, last = (_layer(place, end, known) for end in ends)
    if first > last:
        raise PartitionError(f"{place}: layer {last} comes before layer {first}; give the first one first")
    return Run(first, last)


def _layer(place: str, asked: IndexOrName, known: Known) -> int:
    if isinstance(asked, int):
        if asked < known.num_layers:
            return asked
        raise PartitionError(f"{place}: there is no layer {asked}; layers are 0 to {known.num_layers - 1}")
    shown = ascii(asked)
    if not known.layer_names:
        raise PartitionError(f"{place}: {shown} is a name, layers of a network have none; write 0 to "
                             f"{known.num_layers - 1}")  # fmt: skip
    found = [index for index, name in enumerate(known.layer_names) if name == asked]
    if not found:
        raise PartitionError(f"{place}: no layer is named {shown}; write a name of the table, or 0 to "
                             f"{known.num_layers - 1}")  # fmt: skip
    if len(found) > 1:
        raise PartitionError(f"{place}: layers {found[0]} and {found[1]} are both named {shown}; write the index")
    return found[0]


def _device(place: str, asked: IndexOrName, known: Known) -> int:
    names = known.device_names
    if isinstance(asked, int) and asked < len(names):
        return asked
    if isinstance(asked, str) and asked in names:
        return names.index(asked)
    shown = ascii(asked)
    last = len(names) - 1
    indices = "0" if last == 0 else f"0 to {last}"
    by_name = "" if names[-1] == str(last) else f", or a name such as {names[-1]}"
    raise PartitionError(f"{place}: there is no device {shown}; write {indices}{by_name}")


def _check_devices(places: Sequence[str], constraints: Constraints, known: Known) -> None:
    """What lies in one stage cannot be on two devices."""
    of_block: dict[Run, tuple[str, int]] = {}
    for place, pin in zip(places, constraints.pins, strict=True):
        block = constraints.block_of(pin.run.first_layer)
        earlier, device = of_block.setdefault(block, (place, pin.device))
        if device != pin.device:
            here, there = (device_in_words(known.device_names[one]) for one in (pin.device, device))
            raise PartitionError(
                f"{place}: {block.in_words}, kept in one stage, cannot be on {here} and, by {earlier}, on {there}; pin "
                "them to one device"
            )
