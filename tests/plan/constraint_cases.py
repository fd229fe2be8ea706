"""Random constraints on small chains, and what they allow by their definition."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

from partition.plan.constraints import Constraints, Pin, Run

Stage = tuple[int, int, int]
"""Device, first and last layer."""


def random_constraints(choose: random.Random, num_layers: int, num_devices: int) -> Constraints:
    """Up to two runs kept together and up to three pins; what shares a stage is pinned to one device."""
    together = tuple(_run(choose, num_layers, 2) for _ in range(choose.choice([0, 1, 2])) if num_layers > 1)
    pins: list[Pin] = []
    for _ in range(choose.choice([0, 0, 1, 2, 3])):
        pin = Pin(_run(choose, num_layers, 1), choose.randrange(num_devices))
        found = Constraints(num_layers=num_layers, together=together, pins=(*pins, pin))
        if all(found.block_of(one.run.first_layer) != found.block_of(other.run.first_layer)
               or one.device == other.device for one, other in combinations(found.pins, 2)):  # fmt: skip
            pins.append(pin)
    return Constraints(num_layers=num_layers, together=together, pins=tuple(pins))


def _run(choose: random.Random, num_layers: int, least: int) -> Run:
    length = min(num_layers, choose.choice([least, least, least + 1]))
    first = choose.randint(0, num_layers - length)
    return Run(first, first + length - 1)


def is_allowed(constraints: Constraints, stages: Sequence[Stage]) -> bool:
    """Every run in one stage, every pinned one on its device: by the definition."""
    runs = [*constraints.together, *(pin.run for pin in constraints.pins)]
    is_whole = all(any(first <= run.first_layer and run.last_layer <= last for _, first, last in stages)
                   for run in runs)  # fmt: skip
    return is_whole and all(any(on == device and first <= run.first_layer <= last for on, first, last in stages)
                            for run, device in constraints.pins)  # fmt: skip


def allowed_splits(constraints: Constraints, placement: Sequence[int]) -> list[tuple[Stage, ...]]:
    """Every split into stages on these devices that honours the constraints."""
    layers = constraints.num_layers
    found = []
    for cuts in combinations(range(1, layers), len(placement) - 1):
        ends = (0, *cuts, layers)
        split = tuple((device, ends[at], ends[at + 1] - 1) for at, device in enumerate(placement))
        if is_allowed(constraints, split):
            found.append(split)
    return found
