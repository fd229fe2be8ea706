"""In which orders stages are laid on devices: every distinct one where these are few.

An order names the devices of positions 0, 1, ... of a pipeline. Devices of one kind stand for one another, so of the
orders that differ by such exchanges the one that takes them by their index is tried; those that leave the order of the
experiment as it is come first, and win where others are no better.

    kinds a b b c, 2 positions      01 03 13 12   10 30 31        a-b a-c b-c b-b  b-a c-a c-b
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import comb

from partition.plan.split import Segment

MOST_ORDERS = 120
"""Orders of which every one is tried."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """The orders that are tried, and of how many."""

    tried: tuple[tuple[int, ...], ...]
    """Device of every position; the positions may be more than are needed, and are then skipped in order."""
    total: int
    """Distinct orders of the devices that are needed."""
    is_exhaustive: bool
    is_pinned: bool = False
    """Whether only those count in which a split honours the pins, as far as they are listed."""

    @property
    def in_words(self) -> str:
        """What was tried."""
        if self.is_pinned:
            what = f"{self.total:,} orders of devices"
            if self.is_exhaustive:
                return f"{'the one order of devices' if self.total == 1 else f'all {what}'} that the pins allow tried"
            return f"{len(self.tried)} of {what} tried, with the pins: not proved over orders"
        if self.is_exhaustive:
            return f"all {self.total:,} orders of unlike devices tried"
        more = len(self.tried) - 1
        others = f" and {more} other{'s' * (more > 1)}" if more else ""
        return f"the given order{others} of {self.total:,} of unlike devices: not proved over orders"


def device_orders(kinds: Sequence[Hashable], num_taken: int, speeds: Sequence[float], memory: Sequence[int]) -> Orders:
    """The orders to try of so many of some devices; of more than `MOST_ORDERS` the given one and those by figures."""
    total = count_orders(kinds, num_taken)
    if total <= MOST_ORDERS:
        found = sorted(distinct_orders(kinds, num_taken), key=lambda order: (list(order) != sorted(order), order))
        return Orders(tried=tuple(found), total=total, is_exhaustive=True)
    tried = orders_by_figures(len(kinds), figures_of(speeds, memory))
    return Orders(tried=tried, total=total, is_exhaustive=False)


def figures_of(speeds: Sequence[float], memory: Sequence[int]) -> tuple[Sequence[float], ...]:
    """What devices are sorted by: the largest first, the fastest first, the slowest first."""
    return [-of for of in memory], [-of for of in speeds], speeds


def orders_by_figures(num_devices: int, figures: Sequence[Sequence[float]]) -> tuple[tuple[int, ...], ...]:
    """The given order of so many devices, and those by each of some figures of them."""
    devices = range(num_devices)
    by_figures = (tuple(sorted(devices, key=of.__getitem__)) for of in figures)
    return tuple(dict.fromkeys((tuple(devices), *by_figures)))


def given_order(kinds: Sequence[Hashable], num_taken: int) -> Orders:
    """The order of the experiment alone."""
    return Orders(tried=(tuple(range(len(kinds))),), total=count_orders(kinds, num_taken), is_exhaustive=False)


def on_devices(split: Sequence[Segment], order: Sequence[int]) -> tuple[Segment, ...]:
    """A split over positions on the devices of an order."""
    return tuple(segment._replace(device=order[segment.device]) for segment in split)


def count_orders(kinds: Sequence[Hashable], num_taken: int) -> int:
    """How many distinct orders of so many devices there are, like ones exchanged."""
    ways = [1] + [0] * num_taken
    for available in Counter(kinds).values():
        ways = [sum(ways[placed - more] * comb(placed, more) for more in range(min(available, placed) + 1))
                for placed in range(num_taken + 1)]  # fmt: skip
    return ways[num_taken]


def distinct_orders(kinds: Sequence[Hashable], num_taken: int) -> Iterator[tuple[int, ...]]:
    """Every one of them, devices of a kind in the order of their index."""
    if num_taken == 0:
        yield ()
        return
    for order in distinct_orders(kinds, num_taken - 1):
        for kind in dict.fromkeys(kinds):
            free = [device for device, of in enumerate(kinds) if of == kind and device not in order]
            if free:
                yield (*order, free[0])
