"""Messages between the processes of one host: the receiver reads the sender's memory.

    sender      "at this address, so many bytes"  ->  receiver      a record on a socket, once a send is posted
                                                      copies        once the receive is posted too
    sender  <-  "taken"                               receiver      the buffer is the sender's again

One copy, no thread and no buffer besides the two that the messages are between. torch.distributed's gloo has a thread
that reads and writes its sockets, and where every core is busy, that thread and the one that computes keep each other
waiting for whole time slices of the scheduler: with microbatches of half a millisecond that is half of a step.

A rank copies when it posts a receive and while it waits, for every message that both ends have posted. So whoever waits
for a rank that waits gets on, and the order of the lowered schedule, which runs to its end even where nothing is
buffered, does so here. Linux only, and where the kernel lets siblings read each other's memory: `peer_opening`
tries it.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping

from torch import Tensor

from partition.errors import PeerError
from partition.runtime.channel import Delivery
from partition.runtime.process_memory import read_memory
from partition.runtime.transport import Description, Transport

_RECORD = struct.Struct("=QQ")
FULL_S = 0.001
"""After which a full socket is looked at again: a few hundred records that the peer has not read fill it."""
_TAKEN = _RECORD.pack(0, 2**64 - 1)
"""The oldest message that was not yet taken is."""


class MemoryDelivery:
    """A message under way, seen from either side."""

    def __init__(self, peer: _Peer, tensor: Tensor, waiting_for: Description) -> None:
        self.peer = peer
        self.tensor: Tensor | None = tensor
        """Until it is complete: the sender's is read, the receiver's written."""
        self.waiting_for = waiting_for
        self.completed_s = 0.0
        self.work_s = 0.0

    def complete(self) -> None:
        """Let go of the tensor."""
        self.tensor, self.completed_s = None, time.perf_counter()

    def wait(self) -> bool:
        """Wait until it is complete.

        Raises PeerError where the other side has gone or has not come within the time-out.
        """
        if self.tensor is not None:
            self.peer.memory.wait_for(self)
        return True


class PeerMemory:
    """The connections of a rank to others of its host: all ranks, or those of its replica."""

    def __init__(self, connections: Mapping[int, tuple[socket.socket, int]], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._peers = {rank: _Peer(self, connection, pid) for rank, (connection, pid) in connections.items()}
        self._of_descriptor = {peer.connection.fileno(): peer for peer in self._peers.values()}
        self._poll = select.poll()
        for descriptor in self._of_descriptor:
            self._poll.register(descriptor, select.POLLIN)
        self.copied_s = 0.0
        """Seconds spent in copying, so far."""

    @property
    def transports(self) -> Mapping[int, Transport]:
        """Messages to and from every other rank that is connected."""
        return self._peers

    def pid_of(self, rank: int) -> int:
        """The process of a rank that is connected."""
        return self._peers[rank].pid

    def progress(self) -> None:
        """Read all news, copy what can be."""
        is_going_on = True
        while is_going_on:
            has_taken = [peer.take() for peer in self._peers.values()]
            is_going_on = self._read_news(0) or any(has_taken)

    def _read_news(self, timeout_ms: float) -> bool:
        """Take in a record of every peer that has sent one; whether there was any."""
        news = self._poll.poll(timeout_ms)
        for descriptor, _ in news:
            if not self._of_descriptor[descriptor].read():
                self._poll.unregister(descriptor)
        return bool(news)

    def wait_for(self, delivery: MemoryDelivery) -> None:
        """Wait until a message is complete, and get on with all others meanwhile.

        Raises PeerError where the other side has gone or has not come within the time-out.
        """
        copied_s, until_s = self.copied_s, time.monotonic() + self._timeout_s
        while True:
            self.progress()
            if delivery.tensor is None:
                break
            if delivery.peer.is_gone:
                raise PeerError(waiting_for=delivery.waiting_for(), cause="its process has closed the connection")
            if not self._poll.poll(max(0.0, until_s - time.monotonic()) * 1000):
                raise PeerError(waiting_for=delivery.waiting_for(), cause=f"nothing within {self._timeout_s:g} s")
        delivery.work_s = self.copied_s - copied_s

    def tell(self, peer: _Peer, record: bytes, waiting_for: Description) -> None:
        """Send a record; where the peer's socket is full, read what others tell meanwhile, and copy nothing.

        Raises PeerError where the peer has gone or takes in nothing within the time-out.
        """
        until_s = time.monotonic() + self._timeout_s
        while True:
            try:
                peer.connection.send(record)
                return
            except BlockingIOError:
                if time.monotonic() > until_s:
                    cause = (
                        f"its socket is full of what it has not read within {self._timeout_s:g} s; see what keeps that "
                        "process, or allow more with training.timeout"
                    )
                    raise PeerError(waiting_for=waiting_for(), cause=cause) from None
                self._read_news(FULL_S * 1000)
            except OSError as error:
                raise PeerError(waiting_for=waiting_for(), cause=error.strerror or str(error)) from error

    def close(self) -> None:
        """Close all connections."""
        for peer in self._peers.values():
            peer.connection.close()


class _Peer:
    """The connection to one other rank: messages and answers in both directions."""

    def __init__(self, memory: PeerMemory, connection: socket.socket, pid: int) -> None:
        self.memory = memory
        self.connection = connection
        # A full socket must not keep this rank from reading its own: the peer may wait for that.
        connection.setblocking(False)
        self.is_gone = False
        self.pid = pid
        self._offered: deque[tuple[int, int]] = deque()
        """Address and bytes of what the peer has sent and no receive has met."""
        self._posted: deque[MemoryDelivery] = deque()
        """Receives that nothing has met."""
        self._sent: deque[MemoryDelivery] = deque()
        """Sends that the peer has not taken."""

    def send(self, tensor: Tensor, waiting_for: Description) -> Delivery:
        """Post a send; the tensor stays untouched until the delivery is complete."""
        delivery = MemoryDelivery(self, tensor, waiting_for)
        self._sent.append(delivery)
        self.memory.tell(self, _RECORD.pack(tensor.data_ptr(), tensor.nbytes), waiting_for)
        return delivery

    def receive(self, into: Tensor, waiting_for: Description) -> Delivery:
        """Post a receive into a buffer of as many bytes as are sent."""
        delivery = MemoryDelivery(self, into, waiting_for)
        self._posted.append(delivery)
        self.memory.progress()
        return delivery

    def read(self) -> bool:
        """Take in one record if it is there; False where the peer has closed the connection."""
        try:
            record = self.connection.recv(_RECORD.size)
        except BlockingIOError:
            return True
        except OSError:
            record = b""
        if not record:
            self.is_gone = True
            return False
        if record == _TAKEN:
            self._sent.popleft().complete()
        else:
            self._offered.append(_RECORD.unpack(record))
        return True

    def take(self) -> bool:
        """Copy what both sides have posted, in order, and say so; whether there was any."""
        has_taken = False
        while self._offered and self._posted:
            address, num_bytes = self._offered.popleft()
            delivery = self._posted.popleft()
            assert delivery.tensor is not None, "it is complete once it is copied"
            self._copy(delivery, address, num_bytes)
            delivery.complete()
            self.memory.tell(self, _TAKEN, delivery.waiting_for)
            has_taken = True
        return has_taken

    def _copy(self, delivery: MemoryDelivery, address: int, num_bytes: int) -> None:
        into = delivery.tensor
        assert into is not None, "it is complete once it is copied"
        if num_bytes != into.nbytes:
            cause = f"{num_bytes} bytes were sent, {into.nbytes} expected"
            raise PeerError(waiting_for=delivery.waiting_for(), cause=cause)
        start_s = time.perf_counter()
        try:
            read_memory(self.pid, address, into.data_ptr(), num_bytes)
        except OSError as error:
            raise PeerError(waiting_for=delivery.waiting_for(), cause=f"its memory: {error.strerror}") from error
        self.memory.copied_s += time.perf_counter() - start_s
