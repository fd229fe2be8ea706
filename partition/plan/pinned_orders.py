"""In which orders stages are laid on devices where layers are pinned: those in which a split honours the pins.

Where there are too many to list, devices that layers are pinned to are put in the order of these layers, once in the
places that they have and once with the others shared out between them by the layers that lie there:

    pinned     layer 0 to c, layer 5 of 8 to a, devices a b c d      c b a d     c b d a
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from partition.plan.constraints import Constraints
from partition.plan.orders import MOST_ORDERS, Orders, count_orders, distinct_orders, orders_by_figures

MOST_LISTED = 5_000
"""Orders of which every one is looked at."""


def pinned_orders(
    constraints: Constraints,
    placement: Sequence[int],
    kinds: Sequence[Hashable],
    figures: Sequence[Sequence[float]],
    most: int = MOST_ORDERS,
) -> Orders:
    """The orders to try of as many devices as positions in a placement of stages; as many as that have a split.

    `kinds` tell devices apart, `figures` are what they may be sorted by: for each figure that of every device. No more
    than `most` orders are tried.
    """
    num_taken, pinned = max(placement) + 1, constraints.pinned_devices
    told_apart = [(kind, device if device in pinned else None) for device, kind in enumerate(kinds)]

    def has_split(order: Sequence[int]) -> bool:
        return constraints.has_split([order[position] for position in placement])

    # With a stage on every device and layers pinned to all of them there is one order, those of the layers.
    is_given = len(pinned) == num_taken and list(placement) == list(range(num_taken))
    total, is_listed = 1 if is_given else count_orders(told_apart, num_taken), False
    if total <= MOST_LISTED:
        every = [pinned] if is_given else distinct_orders(told_apart, num_taken)
        listed = [order for order in every if has_split(order)]
        total, is_listed = len(listed), True
        if total <= most:
            tried = sorted(listed, key=lambda order: (list(order) != sorted(order), order))
            return Orders(tried=tuple(tried), total=total, is_exhaustive=True, is_pinned=True)
    arranged = (order for base in orders_by_figures(len(kinds), figures)
                for order in _arranged(constraints, base, num_taken))  # fmt: skip
    tried = [order for order in dict.fromkeys(arranged) if has_split(order)]
    if is_listed and not tried:
        tried = listed[:1]
    return Orders(tried=tuple(tried[:most]), total=total, is_exhaustive=False, is_pinned=True)


def _arranged(constraints: Constraints, base: Sequence[int], num_taken: int) -> Iterator[tuple[int, ...]]:
    """Two orders of so many devices, all that layers are pinned to among them."""
    pinned = constraints.pinned_devices
    others = [device for device in base if device not in pinned][: max(0, num_taken - len(pinned))]
    if len(pinned) + len(others) != num_taken:
        return
    taken, in_order = {*pinned, *others}, iter(pinned)
    yield tuple(next(in_order) if device in pinned else device for device in base if device in taken)
    shared: list[int] = []
    left = iter(others)
    for index, count in enumerate(_shares(constraints.blocks_between, len(others))):
        shared += [next(left) for _ in range(count)]
        shared += pinned[index : index + 1]
    yield (*shared, *left)


def _shares(blocks: Sequence[int], num_devices: int) -> list[int]:
    """Devices for each run of blocks, in proportion and no more than there are blocks; some may be left."""
    shares = [0] * len(blocks)
    for _ in range(num_devices):
        at = max(range(len(blocks)), key=lambda index: blocks[index] / (shares[index] + 1))
        if blocks[at] <= shares[at]:
            break
        shares[at] += 1
    return shares
