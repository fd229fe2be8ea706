"""Measured costs of what ranks send each other: posting, links by size of the message, sums over all ranks.

A message moves once both ends have posted. Which of the two comes last makes a difference to who copies it, hardly to
how long it takes, so both are measured and averaged, each on one rank's own clock:

    receive first    half of a round trip, less the posting of the send
    send first       on the receiving side, from posting the receive until it is complete, less that posting

Where the receiver reads the sender's memory, it does so while it posts a receive that comes last: that is its posting
(`partition.runtime.in_pipeline`), and only the first of the two is the message.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from partition.costs.profile import Curve, LinkCurve, Messages
from partition.runtime.channel import Delivery
from partition.runtime.processes import BeginSum, ProcessWorld
from partition.runtime.timing import curve, median_and_spread
from partition.runtime.world import share_all, share_largest

REPEATS, SLOW_REPEATS = 9, 3
SLOW_S = 0.05
"""A message that takes longer is repeated less often."""
LONGEST_S = 0.6
"""Larger messages than one that takes this long are not measured: seconds go on along a line."""
MOST_SUMS, MOST_SUM_BYTES = 64, 2**26
"""Tensors that are added at once, as gradients are: as many as the network has, up to these."""
HEAD_START_S = 0.003
"""By which one end posts before the other."""
BURST_WIDTH = 1024
"""Of the products that run before a message is posted, as they do in training: caches are full of other things."""

_Times = tuple[float, float, float, float]
"""Posting a send, posting a receive, receive first, send first."""


def measure_messages(
    world: ProcessWorld, message_bytes: Sequence[int], tensor_bytes: Sequence[int], gradient_bytes: Sequence[int] = ()
) -> Messages:
    """Measure messages between neighbours, one pair after another, and sums of tensors of some sizes.

    `gradient_bytes` are the tensors that training adds up at once, in this order. All ranks call it together.
    """
    num_ranks = world.process.world_size
    posts: dict[int, list[tuple[float, float]]] = {}
    links = []
    for source, destination in pairwise(range(num_ranks)):
        found = {}
        for num_bytes in message_bytes:
            times = _message(world, source, num_bytes)
            posts.setdefault(num_bytes, []).append((times[0], times[1]))
            found[num_bytes] = _transfer(times, reads_memory=world.reads_memory)
            if found[num_bytes][0] > LONGEST_S:
                break
        links += [
            LinkCurve(source=first, destination=second, curve=curve(found))
            for first, second in ((source, destination), (destination, source))
        ]
    send, receive = ({size: (statistics.median(one[side] for one in of), 0.0) for size, of in posts.items()}
                     for side in (0, 1))  # fmt: skip
    return Messages(
        send=curve(send),
        receive=curve(receive),
        links=tuple(links),
        sums=_sums(world, tensor_bytes, gradient_bytes),
        share_s=_share_s(world),
    )


def _transfer(times: _Times, *, reads_memory: bool) -> tuple[float, float]:
    """Seconds of the message, and by how much the two ways to measure differ."""
    post_send_s, post_receive_s, receive_first_s, send_first_s = times
    both = [max(0.0, receive_first_s - post_send_s)]
    if not reads_memory:
        both.append(max(0.0, send_first_s - post_receive_s))
    mean = statistics.fmean(both)
    return mean, (max(both) - min(both)) / mean if mean > 0 else 0.0


def _message(world: ProcessWorld, source: int, num_bytes: int) -> _Times:
    """Medians for messages from a rank to the next, known to all ranks."""
    rank, device = world.process.rank, world.message_device
    end = _End(world, source, num_bytes, device) if rank in (source, source + 1) else None
    first = share_largest(world, end.both_ways() if end else _NOTHING)
    repeats = SLOW_REPEATS if max(first) > SLOW_S else REPEATS
    mine = [end.both_ways() if end else _NOTHING for _ in range(repeats)]
    medians = np.median(np.array(mine), axis=0)
    found = share_largest(world, medians)
    return float(found[0]), float(found[1]), float(found[2]), float(found[3])


_NOTHING = (0.0, 0.0, 0.0, 0.0)


class _End:
    """One end of the messages between two ranks."""

    def __init__(self, world: ProcessWorld, source: int, num_bytes: int, device: torch.device) -> None:
        self._is_source = world.process.rank == source
        self._transport = world.transports[source + 1 if self._is_source else source]
        self._num_bytes, self._device = num_bytes, device
        self._sent = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
        self._burst = torch.zeros((3, BURST_WIDTH, BURST_WIDTH), device=device)

    def both_ways(self) -> _Times:
        """One message in each order of posting, and what posting took."""
        round_trip_s = self._round_trip()
        post_send_s, post_receive_s, send_first_s = self._send_first()
        return post_send_s, post_receive_s, round_trip_s / 2, send_first_s

    def _round_trip(self) -> float:
        """There and back; the receiver waits already. Known to the source."""
        self._meet()
        if not self._is_source:
            self._receive()
            self._send()
            return 0.0
        self._compute()
        start_s = time.perf_counter()
        self._send()
        self._receive()
        return time.perf_counter() - start_s

    def _send_first(self) -> tuple[float, float, float]:
        """Posting at both ends, and from posting the receive until it is complete; each known where it happens."""
        self._meet()
        if self._is_source:
            self._compute(HEAD_START_S / 3)
            start_s = time.perf_counter()
            delivery = self._transport.send(self._sent, _waiting_for)
            post_s = time.perf_counter() - start_s
            _wait(delivery, self._device)
            return post_s, 0.0, 0.0
        self._compute(2 * HEAD_START_S)
        start_s = time.perf_counter()
        into = torch.empty(self._num_bytes, dtype=torch.uint8, device=self._device)
        delivery = self._transport.receive(into, _waiting_for)
        post_s = time.perf_counter() - start_s
        _wait(delivery, self._device)
        return 0.0, post_s, time.perf_counter() - start_s

    def _compute(self, least_s: float = HEAD_START_S) -> None:
        """What a rank does between messages."""
        until_s = time.perf_counter() + least_s
        while time.perf_counter() < until_s:
            torch.mm(self._burst[0, :16], self._burst[1], out=self._burst[2, :16])
        _synchronize(self._device)

    def _meet(self) -> None:
        """Both ends go on at about the same moment."""
        number = torch.zeros(1, device=self._device)
        for is_sending in (self._is_source, not self._is_source):
            post = self._transport.send if is_sending else self._transport.receive
            _wait(post(number, _waiting_for), self._device)

    def _send(self) -> None:
        _wait(self._transport.send(self._sent, _waiting_for), self._device)

    def _receive(self) -> None:
        into = torch.empty(self._num_bytes, dtype=torch.uint8, device=self._device)
        _wait(self._transport.receive(into, _waiting_for), self._device)


def _waiting_for() -> str:
    return "the other end of a message that is measured"


def _wait(delivery: Delivery, device: torch.device) -> None:
    delivery.wait()
    _synchronize(device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sums(world: ProcessWorld, tensor_bytes: Sequence[int], gradient_bytes: Sequence[int]) -> Curve:
    """Adding up one tensor of several over all ranks, by its bytes."""
    begin = world.sum_over(range(world.process.world_size), world.down)

    def added(sizes: Sequence[int]) -> tuple[float, float]:
        tensors = [torch.zeros(max(1, size // 4), device=world.message_device) for size in sizes]
        return _repeated(world, partial(_add, begin, tensors))

    found = {}
    for num_bytes in tensor_bytes:
        count = max(1, min(len(gradient_bytes), MOST_SUMS, MOST_SUM_BYTES // num_bytes))
        total_s, spread = added([num_bytes] * count)
        found[num_bytes] = total_s / count, spread
        if total_s > LONGEST_S:
            break
    alike = curve(found)
    # One tensor after the other is added by reading memory, whatever the sizes of the others.
    if world.reads_memory:
        return alike
    sizes = affordable(alike, gradient_bytes)
    alike_s = sum(map(alike.at, sizes))
    if alike_s == 0:
        return alike
    # Where few are large, the last of them is on the links alone, and these are idle between its steps.
    total_s, spread = added(sizes)
    return alike.model_copy(update={
        "seconds": tuple(total_s / alike_s * seconds for seconds in alike.seconds),
        "spread": tuple(max(spread, of_size) for of_size in alike.spread),
    })  # fmt: skip


def affordable(alike: Curve, gradient_bytes: Sequence[int]) -> list[int]:
    """The first tensors, as many as can be measured, and where they take too long smaller ones of nearly the same
    proportions.

    `alike` are the seconds of each where all are of its size.
    """
    at_most = LONGEST_S / max(alike.seconds[0], 1e-9)
    some = gradient_bytes[: max(1, int(min(MOST_SUMS, at_most)))]
    too_long = max(1.0, sum(some) / MOST_SUM_BYTES, sum(map(alike.at, some)) / LONGEST_S)
    return [max(4, int(size / too_long)) for size in some]


def _add(begin: BeginSum, tensors: Sequence[torch.Tensor]) -> None:
    """As the gradients of a stage are added: all posted, then waited for."""
    _wait(begin(tensors, _waiting_for), tensors[0].device)


def _share_s(world: ProcessWorld) -> float:
    """The exchange of numbers at the end of a step."""
    numbers = {world.process.rank: np.zeros(64)}
    return _repeated(world, lambda: share_all(world, numbers))[0]


def _repeated(world: ProcessWorld, run: Callable[[], object]) -> tuple[float, float]:
    """Median and spread of what all ranks do together, the slowest rank's."""
    taken: list[float] = []
    for _ in range(2 + REPEATS):
        share_all(world, {world.process.rank: np.zeros(1)})
        start_s = time.perf_counter()
        run()
        mine_s = time.perf_counter() - start_s
        taken.append(float(share_largest(world, [mine_s])[0]))
        if len(taken) > SLOW_REPEATS and taken[-1] > SLOW_S:
            break
    kept = taken[min(2, len(taken) - 1) :]
    return median_and_spread(kept)


def sizes_of(largest_bytes: int) -> list[int]:
    """Message sizes worth measuring up to the largest: 8 bytes, 1 KiB, and on by factors of 4."""
    grid = [8, *(1024 * 4**power for power in range(16))]
    return sorted({*(size for size in grid if size <= largest_bytes), max(8, largest_bytes)})
