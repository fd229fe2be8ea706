"""How a boundary tensor gets from one stage to the next.

A message is posted twice, by its sender and by its receiver, and moves once both have posted. A buffer is the
sender's again when the message is complete; the receiver may read when it is. `LocalChannels` joins devices of one
process; between processes the same interface stands on torch.distributed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from partition.schedule import Action, Kind


class MessageKey(NamedTuple):
    """What identifies a message within a step."""

    source_stage: int
    destination_stage: int
    microbatch: int

    @property
    def send(self) -> Action:
        """The action that sends it."""
        kind = Kind.SEND_F if self.destination_stage > self.source_stage else Kind.SEND_B
        return Action(self.source_stage, kind, self.microbatch)


class Delivery(Protocol):
    """Something under way between ranks: a message, seen from either side, a sum, or shared numbers."""

    def wait(self) -> bool:
        """Whether it is complete; where no other rank could run meanwhile, wait until it is."""

    @property
    def completed_s(self) -> float:
        """When it was complete, on the clock of the devices."""

    @property
    def work_s(self) -> float:
        """Seconds of the last wait in which this rank did not wait but worked on messages."""


class Channels(Protocol):
    """Carries messages between one rank and all others."""

    def send(self, key: MessageKey, tensor: Tensor, now_s: float) -> Delivery:
        """Post a send; the tensor stays untouched until the delivery is complete."""

    def receive(self, key: MessageKey, into: Tensor, now_s: float) -> Delivery:
        """Post a receive into a buffer that has the shape of the tensor sent."""


class NobodyThere:
    """For a rehearsal: what is sent goes nowhere, what is received is zero, and both at once."""

    completed_s = 0.0
    work_s = 0.0

    def wait(self) -> bool:
        """Every message is complete."""
        return True

    def send(self, key: MessageKey, tensor: Tensor, now_s: float) -> Delivery:
        """Nothing is under way afterwards."""
        del key, tensor, now_s
        return self

    def receive(self, key: MessageKey, into: Tensor, now_s: float) -> Delivery:
        """Zeros."""
        del key, now_s
        into.detach().zero_()
        return self


@dataclass(kw_only=True)
class _Message:
    """One message of a link, posted by one side or both."""

    tensor: Tensor | None = None
    into: Tensor | None = None
    sent_s: float = 0.0
    received_s: float = 0.0
    completed_s: float = 0.0
    work_s: float = 0.0
    is_complete: bool = False

    def wait(self) -> bool:
        """Whether the tensor has arrived."""
        return self.is_complete


class LocalChannels:
    """Messages between devices of one process, with the clock of a link that carries one message at a time.

    A link is an ordered pair of ranks; it takes its messages in the order in which they were sent.
    """

    def __init__(self, placement: tuple[int, ...], transfer_s: Callable[[MessageKey], float]) -> None:
        self.placement = placement
        self.transfer_s = transfer_s
        self._open: dict[MessageKey, _Message] = defaultdict(_Message)
        self._links: dict[tuple[int, int], deque[MessageKey]] = defaultdict(deque)
        self._free_s: dict[tuple[int, int], float] = defaultdict(float)

    def send(self, key: MessageKey, tensor: Tensor, now_s: float) -> Delivery:
        """Post a send; the tensor stays untouched until the delivery is complete."""
        message = self._open[key]
        message.tensor, message.sent_s = tensor, now_s
        link = self._link(key)
        self._links[link].append(key)
        self._carry(link)
        return message

    def receive(self, key: MessageKey, into: Tensor, now_s: float) -> Delivery:
        """Post a receive into a buffer that has the shape of the tensor sent."""
        message = self._open[key]
        message.into, message.received_s = into, now_s
        self._carry(self._link(key))
        return message

    def _link(self, key: MessageKey) -> tuple[int, int]:
        return self.placement[key.source_stage], self.placement[key.destination_stage]

    def _carry(self, link: tuple[int, int]) -> None:
        """Move every message at the head of a link whose two sides have posted."""
        queue = self._links[link]
        while queue and self._open[queue[0]].into is not None:
            key = queue.popleft()
            message = self._open.pop(key)
            assert message.into is not None
            assert message.tensor is not None
            message.into.copy_(message.tensor)
            message.tensor = message.into = None
            start_s = max(message.sent_s, message.received_s, self._free_s[link])
            message.completed_s = self._free_s[link] = start_s + self.transfer_s(key)
            message.is_complete = True
