"""What a split has to honour: runs of layers that one stage holds, and runs that a given device holds.

    layers     0 1 2 3 4 5 6 7
    together   [---]   [-]              no cut inside
    pinned           d           e      one stage, on that device, and on no other

So a stage on a device may not reach over a layer that is pinned to another one: for every last layer there is an
earliest first one. With the places where cuts are allowed that is all a search has to know.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple


class Run(NamedTuple):
    """Neighbouring layers, by the first and the last of them."""

    first_layer: int
    last_layer: int

    @property
    def in_words(self) -> str:
        """`layer 3`, `layers 3-5`."""
        is_one = self.first_layer == self.last_layer
        return f"layer {self.first_layer}" if is_one else f"layers {self.first_layer}-{self.last_layer}"

    @property
    def layers(self) -> range:
        """All of them."""
        return range(self.first_layer, self.last_layer + 1)


class Pin(NamedTuple):
    """A run of layers that one stage holds, on one device."""

    run: Run
    device: int


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Runs that are kept together and runs that are pinned; runs that share a layer are one."""

    num_layers: int
    together: tuple[Run, ...] = ()
    """As they were asked for."""
    pins: tuple[Pin, ...] = ()
    """As they were asked for; devices by index, -1 for one that takes no part."""

    @property
    def is_free(self) -> bool:
        """Whether every split will do."""
        return not self.together and not self.pins

    def on(self, devices: Sequence[int]) -> Constraints:
        """The same where positions in a row of devices stand for the devices."""
        at = {device: position for position, device in enumerate(devices)}
        return replace(self, pins=tuple(Pin(run, at.get(device, -1)) for run, device in self.pins))

    # What is allowed

    @cached_property
    def blocks(self) -> tuple[Run, ...]:
        """All layers in the least runs that a stage takes whole."""
        asked = sorted((*self.together, *(pin.run for pin in self.pins)))
        found: list[Run] = []
        for first, last in asked:
            if found and first <= found[-1].last_layer:
                found[-1] = Run(found[-1].first_layer, max(last, found[-1].last_layer))
                continue
            start = found[-1].last_layer + 1 if found else 0
            found += [*(Run(layer, layer) for layer in range(start, first)), Run(first, last)]
        start = found[-1].last_layer + 1 if found else 0
        return (*found, *(Run(layer, layer) for layer in range(start, self.num_layers)))

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """0, the first layers of stages after a cut that is allowed, and the number of layers."""
        return (*(block.first_layer for block in self.blocks), self.num_layers)

    @cached_property
    def pinned_blocks(self) -> tuple[tuple[int, int], ...]:
        """Which block is pinned to which device, in order."""
        found = {self._block_at(run.first_layer): device for run, device in self.pins}
        return tuple(sorted(found.items()))

    @cached_property
    def blocks_between(self) -> tuple[int, ...]:
        """How many blocks lie before, between and behind those that are pinned to one device after the other."""
        runs = [[block for block, _ in of] for _, of in groupby(self.pinned_blocks, key=lambda pinned: pinned[1])]
        ends = [(-1, -1), *((of[0], of[-1]) for of in runs), (len(self.blocks), len(self.blocks))]
        return tuple(after[0] - before[1] - 1 for before, after in pairwise(ends))

    def block_of(self, layer: int) -> Run:
        """The block that a layer is in."""
        return self.blocks[self._block_at(layer)]

    def _block_at(self, layer: int) -> int:
        return bisect_right(self.edges, layer) - 1

    @property
    def pinned_devices(self) -> tuple[int, ...]:
        """The devices that layers are pinned to, in the order of their first such layers."""
        return tuple(dict.fromkeys(device for _, device in self.pinned_blocks))

    def admits(self, device: int, first_layer: int, last_layer: int) -> bool:
        """Whether a stage of these layers may lie on a device."""
        is_edge = self._is_edge[first_layer] and self._is_edge[last_layer + 1]
        return is_edge and self.earliest(device)[last_layer + 1] <= first_layer

    def earliest(self, device: int) -> Sequence[int]:
        """The earliest first layer of a stage on a device, by the number of layers up to its last one.

        Devices that nothing is pinned to share one list.
        """
        return self._earliest.get(device, self._earliest[None])

    @cached_property
    def _is_edge(self) -> Sequence[bool]:
        edges = set(self.edges)
        return [layer in edges for layer in range(self.num_layers + 1)]

    @cached_property
    def _earliest(self) -> Mapping[int | None, Sequence[int]]:
        """By device; None for those that nothing is pinned to."""
        owners: list[int | None] = [None] * self.num_layers
        for at, device in self.pinned_blocks:
            first, last = self.blocks[at]
            owners[first : last + 1] = [device] * (last + 1 - first)
        return {
            device: list(accumulate((layer + 1 if owner not in (None, device) else 0
                                     for layer, owner in enumerate(owners)), max, initial=0))
            for device in (None, *self.pinned_devices)
        }  # fmt: skip

    def needs(self, num_stages: int) -> Iterator[tuple[Run, int | None, range]]:
        """Every run of several layers that one stage takes whole, the device that it is pinned to, and which of so
        many stages may hold it.
        """
        pinned, count = dict(self.pinned_blocks), len(self.blocks)
        for at, block in enumerate(self.blocks):
            if len(block.layers) > 1:
                stages = range(max(0, num_stages - (count - at)), min(at, num_stages - 1) + 1)
                yield block, pinned.get(at), stages

    # Whether there is a split at all

    def has_split(self, placement: Sequence[int]) -> bool:
        """Whether stages on these devices, in this order and all of them, can cover the layers."""
        if len(set(placement)) == len(placement):
            return self._has_split_of_one_each(placement)
        starts = [(0, 0)]
        for device in placement:
            starts = self._after(device, starts)
        return any(low <= len(self.blocks) <= high for low, high in starts)

    def _has_split_of_one_each(self, devices: Sequence[int]) -> bool:
        """With a stage a device: pins stand in order, and between two of them there are blocks for all devices."""
        at = {device: position for position, device in enumerate(devices)}
        pinned = [device for device, _ in groupby(device for _, device in self.pinned_blocks)]
        if not all(device in at for device in pinned):
            return False
        places = [-1, *(at[device] for device in pinned), len(devices)]
        # Blocks between two pins go to the stages of these where there is no device between them.
        between = zip(pairwise(places), self.blocks_between, strict=True)
        return all(0 <= after - before - 1 <= num_blocks for (before, after), num_blocks in between)

    def _after(self, device: int, starts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """From ranges of blocks covered to those that one more stage, on a device, can cover."""
        others = [-1, *(block for block, owner in self.pinned_blocks if owner != device), len(self.blocks)]
        found: list[tuple[int, int]] = []
        for low, high in starts:
            # A stage begins behind a block that is another's and ends before the next one.
            for before, after in pairwise(others):
                first, last = max(low, before + 1), min(high, after - 1)
                if first <= last:
                    found.append((first + 1, after))
        return _joined(found)

    # In words

    def broken_by(self, stages: Sequence[tuple[int, int, int]], names: Sequence[str]) -> str:
        """What stages (device, first layer, last layer) break, by the names of devices; empty where they honour all.

        Looks at what was asked for layer by layer, and not at what the searches go by.
        """
        holders: dict[int, list[int]] = {}
        for index, (_, first, last) in enumerate(stages):
            for layer in range(first, last + 1):
                holders.setdefault(layer, []).append(index)
        for run in (*self.together, *(pin.run for pin in self.pins)):
            first_holders = holders.get(run.first_layer, [])
            other = next((layer for layer in run.layers if holders.get(layer, []) != first_holders), None)
            if other is not None:
                return f"{run.in_words} are to be kept together, and layer {other} is in another stage than the first"
        for run, device in self.pins:
            for layer in run.layers:
                where = [stages[index][0] for index in holders.get(layer, [])]
                if where != [device]:
                    found = " and ".join(device_in_words(names[one]) for one in where[:4]) or "no device"
                    to_be = f"{run.in_words} {'is' if len(run.layers) == 1 else 'are'} to be"
                    holds = f"{found} hold{'s' * (len(where) <= 1)} layer {layer}"
                    return f"{to_be} on {device_in_words(names[device])} alone, and {holds}"
        return ""

    def in_words(self, names: Sequence[str]) -> str:
        """All of it, by the names of the devices; there is something."""
        together = [f"{run.in_words} kept together" for run in self.together]
        pinned = [f"{run.in_words} pinned to {device_in_words(names[device])}" for run, device in self.pins]
        words = list(dict.fromkeys([*together, *pinned]))
        *others, last = [*words[:4], f"{len(words) - 4} more"] if len(words) > 5 else words
        return f"{', '.join(others)} and {last}" if others else last


def device_in_words(name: str) -> str:
    """A device by its name; `device 0` where it has a number alone."""
    return f"device {name}" if name.isdecimal() else name


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that overlap or touch as one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return found
