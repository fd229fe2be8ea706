"""How a message gets from one process to another: what all ways have in common, and that of torch.distributed.

Both ends post the messages of a pair and direction in the same order, that of the lowered schedule, so none needs a
name. `partition.runtime.peer_memory` is the other way, between processes of one host.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor

from partition.errors import PeerError
from partition.runtime.channel import Delivery

Description = Callable[[], str]
"""What is waited for, put into words only when it does not come."""


class Transport(Protocol):
    """Messages between this rank and one other."""

    def send(self, tensor: Tensor, waiting_for: Description) -> Delivery:
        """Post a send; the tensor stays untouched until the delivery is complete."""

    def receive(self, into: Tensor, waiting_for: Description) -> Delivery:
        """Post a receive into a buffer of as many bytes as are sent."""


class GroupTransport:
    """Messages by torch.distributed: gloo between CPUs, NCCL between GPUs."""

    def __init__(self, peer: int, outgoing: dist.ProcessGroup, incoming: dist.ProcessGroup) -> None:
        self._peer = peer
        self._outgoing, self._incoming = outgoing, incoming

    def send(self, tensor: Tensor, waiting_for: Description) -> Delivery:
        """Post a send; the tensor stays untouched until the delivery is complete."""
        return self._post(dist.isend, tensor, self._outgoing, waiting_for)

    def receive(self, into: Tensor, waiting_for: Description) -> Delivery:
        """Post a receive into a buffer of as many bytes as are sent."""
        return self._post(dist.irecv, into, self._incoming, waiting_for)

    def _post(
        self, post: Callable[..., Any], tensor: Tensor, group: dist.ProcessGroup, waiting_for: Description
    ) -> Delivery:
        with broken_as(waiting_for):
            work = post(tensor, self._peer, group=group)
        return GroupDelivery((work,), waiting_for)


class GroupDelivery:
    """What torch.distributed has under way."""

    work_s = 0.0

    def __init__(self, works: Sequence[Any], waiting_for: Description) -> None:
        self._works = works
        self._waiting_for = waiting_for
        self.completed_s = 0.0

    def wait(self) -> bool:
        """Wait until all is complete; on a GPU, make its stream wait.

        Raises PeerError where the other side has gone or has not come within the time-out.
        """
        if self._works:
            with broken_as(self._waiting_for):
                for work in self._works:
                    work.wait()
            self._works = ()
            self.completed_s = time.perf_counter()
        return True


@contextmanager
def broken_as(waiting_for: Description) -> Iterator[None]:
    """Turn what torch.distributed raises into a PeerError that says what was waited for."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(waiting_for=waiting_for(), cause=_first_sentence(str(error))) from error


def _first_sentence(message: str) -> str:
    """What went wrong, of a message that may begin with a place in C++ and go on with advice and a stack trace."""
    line = (message.strip().splitlines() or ["it failed without a message"])[0]
    return re.sub(r"^\[[^\]]*\.(cc|cpp|h):\d+\]\s*", "", line).split(". ")[0]
