"""Sums over processes of one host, in place, by reading each other's memory; no thread, no copy of what is added.

Each of P ranks adds up its share of every tensor, a P-th, and takes the other shares from those who added them:

    ready      every rank tells where its tensors are, once they may be read
    add        own share  <-  t[0] + t[1] + ... + t[P-1], piece by piece, in the order of the ranks
    added      every rank tells that its share is in place
    take       the other shares, from the ranks that added them
    taken      every rank tells that its tensors may change again

So every rank reads and writes each byte about once, and the sum is the one that a single process gets which adds the
tensors of all ranks in order: the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partition.errors import PeerError
from partition.runtime.channel import Delivery
from partition.runtime.peer_memory import PeerMemory
from partition.runtime.process_memory import read_memory
from partition.runtime.transport import Description

PIECE_BYTES = 2**18
"""Added at once: what stays in the caches meanwhile."""
_NOTHING = torch.from_numpy(np.empty(0, np.uint8))


class PeerAdder:
    """Adds up what several ranks have, this one among them, in the order of the ranks."""

    def __init__(self, memory: PeerMemory, rank: int, ranks: Sequence[int]) -> None:
        self.memory, self.rank, self.ranks = memory, rank, ranks
        self.others = [other for other in ranks if other != rank]
        # NumPy's, so that no ledger misses them: they are there before the first step, and stay.
        self.total, self.addend = (torch.from_numpy(np.empty(PIECE_BYTES, np.uint8)) for _ in range(2))

    def begin(self, tensors: Sequence[Tensor], waiting_for: Description) -> Delivery:
        """Offer contiguous tensors of one format, of the same shapes on all ranks; they stay untouched until the end.

        All ranks begin their sums in the same order.
        """
        return PeerSum(self, tensors, waiting_for)

    def share(self, tensor: Tensor, rank: int) -> slice:
        """The elements of a tensor that a rank adds up."""
        place, count, size = self.ranks.index(rank), len(self.ranks), tensor.numel()
        return slice(place * size // count, (place + 1) * size // count)


class PeerSum:
    """A sum under way."""

    work_s = 0.0

    def __init__(self, adder: PeerAdder, tensors: Sequence[Tensor], waiting_for: Description) -> None:
        self._adder = adder
        self._tensors = [tensor.detach().view(-1) for tensor in tensors]
        self._waiting_for = waiting_for
        mine = np.array([tensor.data_ptr() for tensor in tensors], np.int64)
        self._addresses = {other: np.empty_like(mine) for other in adder.others}
        self._ready = self._tell(mine, self._addresses)
        self.completed_s = 0.0

    def wait(self) -> bool:
        """Do this rank's part, and wait until all have done theirs.

        Raises PeerError where another rank has gone or has not come within the time-out.
        """
        if not self.completed_s:
            _wait_for(self._ready)
            for index in range(len(self._tensors)):
                self._add(index)
            _wait_for(self._tell())
            for other in self._adder.others:
                for index, tensor in enumerate(self._tensors):
                    share = tensor[self._adder.share(tensor, other)]
                    self._read(other, index, self._adder.share(tensor, other).start, share)
            _wait_for(self._tell())
            self.completed_s = time.perf_counter()
        return True

    def _tell(
        self, mine: NDArray[np.int64] | None = None, into: Mapping[int, NDArray[np.int64]] | None = None
    ) -> list[Delivery]:
        """Send every other rank some numbers or none, and receive as many of it."""
        transports, sent = self._adder.memory.transports, _NOTHING if mine is None else torch.from_numpy(mine)
        under_way = [
            transports[other].receive(_NOTHING if into is None else torch.from_numpy(into[other]), self._waiting_for)
            for other in self._adder.others
        ]
        return under_way + [transports[other].send(sent, self._waiting_for) for other in self._adder.others]

    def _add(self, index: int) -> None:
        """Put the sum of this rank's share in place."""
        tensor = self._tensors[index]
        total, addend = (scratch.view(tensor.dtype) for scratch in (self._adder.total, self._adder.addend))
        share = self._adder.share(tensor, self._adder.rank)
        for start in range(share.start, share.stop, len(total)):
            mine = tensor[start : min(start + len(total), share.stop)]
            sum_of_some, read = total[: len(mine)], addend[: len(mine)]
            for rank in self._adder.ranks:
                if rank != self._adder.rank:
                    self._read(rank, index, start, read)
                one = mine if rank == self._adder.rank else read
                if rank == self._adder.ranks[0]:
                    sum_of_some.copy_(one)
                else:
                    sum_of_some.add_(one)
            mine.copy_(sum_of_some)

    def _read(self, rank: int, index: int, start: int, into: Tensor) -> None:
        """Copy elements of another rank's tensor, from a given one on."""
        address = int(self._addresses[rank][index]) + start * into.element_size()
        try:
            read_memory(self._adder.memory.pid_of(rank), address, into.data_ptr(), into.nbytes)
        except OSError as error:
            raise PeerError(waiting_for=self._waiting_for(), cause=f"its memory: {error.strerror}") from error


def _wait_for(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.wait()
