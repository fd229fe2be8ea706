"""Lanes beside the chain of a row: where a line runs that leads past other nodes of the chain, as that of a residual.

    forward        under the chain and its letters
    backward       over the gradients
    second order   the u under everything, the H over everything

Lines that would run over each other have lanes of their own, the shorter ones nearer to the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from partition.graph.computational import GraphKind

SIDES: Mapping[GraphKind, Mapping[int, int]] = {
    GraphKind.FORWARD: {0: -1},
    GraphKind.BACKWARD: {1: 1},
    GraphKind.SECOND_ORDER: {0: -1, 2: 1},
}
"""For every level of a chain the side of its lanes: -1 under it, 1 over it."""


class Lane(NamedTuple):
    """One of a row, counted from the chain."""

    side: int
    number: int


class Skip(NamedTuple):
    """A line that leads past nodes, from one place of a row to another."""

    ends: tuple[str, str]
    row: int
    side: int
    left: float
    right: float


def lanes_of(skips: Iterable[Skip]) -> dict[tuple[str, str, int], Lane]:
    """For every line and its row a lane that no other line has in between.

    >>> lanes_of([Skip(("a", "+"), 0, -1, 0.0, 9.0)])
    {("a", "+", 0): Lane(side=-1, number=0)}
    """
    found: dict[tuple[str, str, int], Lane] = {}
    taken: dict[tuple[int, int, int], list[Skip]] = {}
    for skip in sorted(skips, key=lambda one: (one.right - one.left, one.left, one.ends)):
        number = 0
        while any(_overlap(skip, other) for other in taken.get((skip.row, skip.side, number), ())):
            number += 1
        taken.setdefault((skip.row, skip.side, number), []).append(skip)
        found[(*skip.ends, skip.row)] = Lane(skip.side, number)
    return found


def _overlap(one: Skip, other: Skip) -> bool:
    return one.left <= other.right and other.left <= one.right
