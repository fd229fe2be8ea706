from __future__ import annotations

import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from partition.errors import PeerError
from partition.runtime import peer_opening
from partition.runtime.joining import join
from partition.runtime.peer_memory import PeerMemory
from partition.runtime.process import Process
from partition.runtime.process_memory import read_memory
from partition.runtime.processes import ProcessWorld
from tests.runtime.events import peak, recorded
from tests.runtime.ranks import run_ranks


def world(timeout_s: float = 20.0, num_replicas: int = 1) -> ProcessWorld:
    process = Process.of_environment()
    assert process is not None
    if not dist.is_initialized():
        join(process, 20.0)
    return ProcessWorld(process, num_replicas=num_replicas, is_cuda=False, timeout_s=timeout_s)


def waiting() -> str:
    return "a message"


def every_message_arrives(seed: int) -> tuple[bool, int]:
    """Messages of random sizes between all pairs, posted and waited for in a random order that both ends share."""
    this = world()
    rank, size = this.process.rank, this.process.world_size
    choose = random.Random(seed)
    pairs = [(source, destination) for source in range(size) for destination in range(size) if source != destination]
    plan = [(*choose.choice(pairs), choose.choice([0, 1, 7, 4096, 100_003])) for _ in range(200)]
    buffers = {
        number: torch.full((length,), float(number)) if source == rank else torch.empty(length)
        for number, (source, destination, length) in enumerate(plan)
        if rank in (source, destination)
    }
    with recorded() as events:
        posted = [
            (
                this.transports[destination].send(buffers[number], waiting)
                if source == rank
                else this.transports[source].receive(buffers[number], waiting)
            )
            for number, (source, destination, _) in enumerate(plan)
            if number in buffers
        ]
        random.Random(rank).shuffle(posted)
        assert all(delivery.wait() for delivery in posted)
    is_right = all(bool((buffer == number).all()) for number, buffer in buffers.items())
    this.close()
    return this.reads_memory and is_right, peak(events)


@pytest.mark.parametrize("world_size", [2, 3])
def test_messages_arrive_in_order_and_take_no_memory(world_size: int) -> None:
    assert run_ranks(world_size, every_message_arrives, 0) == [(True, 0)] * world_size


def who_waits_takes_other_messages() -> float:
    """Rank 1 waits for rank 2, which comes only once rank 0 has been told that rank 1 has its message."""
    this = world()
    rank, tensor = this.process.rank, torch.full((5,), float(this.process.rank))
    into = torch.zeros(5)
    if rank == 0:
        this.transports[1].send(tensor, waiting).wait()
        this.transports[2].send(tensor, waiting).wait()
    elif rank == 1:
        early = this.transports[0].receive(into, waiting)
        this.transports[2].receive(torch.empty(5), waiting).wait()
        early.wait()
    else:
        this.transports[0].receive(into, waiting).wait()
        this.transports[1].send(tensor, waiting).wait()
    return float(into.sum())


def test_a_rank_that_waits_keeps_nobody_waiting() -> None:
    assert run_ranks(3, who_waits_takes_other_messages) == [0.0, 0.0, 0.0]


def sender_keeps_its_buffer_until_it_is_taken() -> bool:
    this = world()
    if this.process.rank == 0:
        sent = this.transports[1].send(torch.ones(3), waiting)
        before = sent.completed_s
        dist.barrier()
        sent.wait()
        return before == 0.0 and sent.completed_s > 0.0
    dist.barrier()
    into = torch.zeros(3)
    this.transports[0].receive(into, waiting).wait()
    return into.tolist() == [1.0, 1.0, 1.0]


def test_a_send_is_complete_once_it_is_taken() -> None:
    assert run_ranks(2, sender_keeps_its_buffer_until_it_is_taken) == [True, True]


def error_of_rank_0(case: str) -> str:
    this = world(timeout_s=1.0)
    tensor = torch.ones(3)
    if this.process.rank == 1:
        if case == "size":
            this.transports[0].send(torch.ones(4), waiting)
        if case != "gone":
            dist.barrier()
        return ""
    try:
        this.transports[1].receive(tensor, waiting).wait()
    except PeerError as error:
        return str(error)
    finally:
        if case != "gone":
            dist.barrier()
    return "no error"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("gone", "waiting for a message: its process has closed the connection"),
        ("late", "waiting for a message: nothing within 1 s"),
        ("size", "waiting for a message: 16 bytes were sent, 12 expected"),
    ],
)
def test_what_does_not_come_is_told(case: str, expected: str) -> None:
    assert run_ranks(2, error_of_rank_0, case)[0] == expected


def opened(refusing_rank: int, what: str) -> tuple[bool, float]:
    """Whether memory is read where one rank cannot, and what arrives all the same."""
    rank = int(os.environ["RANK"])
    if rank == refusing_rank:
        refusals: dict[str, Any] = {"_listen": lambda *_: None, "_can_read": lambda _: False}
        setattr(peer_opening, what, refusals[what])
    this = world()
    tensor = torch.full((2,), float(rank))
    peer = this.transports[1 - rank]
    deliveries = [peer.send(torch.full((2,), float(rank)), waiting), peer.receive(tensor, waiting)]
    for delivery in deliveries:
        delivery.wait()
    return this.reads_memory, float(tensor[0])


@pytest.mark.parametrize("what", ["_listen", "_can_read"])
def test_where_one_rank_cannot_none_does(what: str) -> None:
    assert run_ranks(2, opened, 1, what) == [(False, 1.0), (False, 0.0)]


def replicas_share_numbers() -> list[list[float]]:
    this = world(num_replicas=2)
    (rank,) = this.ranks
    shared = this.share(rank, np.array([rank / 3, -0.0]), 0.0)
    assert shared.wait()
    return [list(values) for values in shared.values]


def test_numbers_go_to_every_rank_of_every_replica() -> None:
    expected = [[rank / 3, 0.0] for rank in range(4)]
    assert run_ranks(4, replicas_share_numbers) == [expected] * 4


def test_memory_that_is_not_there_is_refused() -> None:
    into = torch.empty(8, dtype=torch.uint8)
    with pytest.raises(OSError, match="Bad address"):
        read_memory(os.getpid(), 8, into.data_ptr(), 8)
    with pytest.raises(OSError, match="No such process"):
        read_memory(2**22 + 1, into.data_ptr(), into.data_ptr(), 8)


def test_a_closed_connection_refuses_what_is_sent() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = PeerMemory({1: (ours, os.getpid())}, 1.0)
    theirs.close()
    with pytest.raises(PeerError, match=r"^waiting for a message: Broken pipe"):
        memory.transports[1].send(torch.ones(1), waiting)
    memory.close()


def pair(timeout_s: float) -> tuple[PeerMemory, PeerMemory]:
    """The two ends of a connection, rank 0's and rank 1's, both in this process."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    first, second = (PeerMemory({1 - rank: (end, os.getpid())}, timeout_s) for rank, end in enumerate(ends))
    return first, second


def test_a_peer_that_reads_nothing_is_told_of_once_the_time_is_up() -> None:
    """A send waited without end for room in the socket, whatever training.timeout said."""
    ends, number = pair(0.1), torch.ones(1)

    def send_all() -> None:
        for _ in range(10_000):
            ends[0].transports[1].send(number, waiting)

    with pytest.raises(PeerError) as caught:
        send_all()
    assert str(caught.value) == (
        "waiting for a message: its socket is full of what it has not read within 0.1 s; see what keeps that process, "
        "or allow more with training.timeout"
    )
    for end in ends:
        end.close()


def test_more_messages_than_a_socket_holds_arrive_though_both_ends_send_all_of_theirs_first() -> None:
    """Both waited for room in the other's socket, and neither read its own."""
    ends, count = pair(20.0), 2000

    def exchange(rank: int) -> bool:
        transport = ends[rank].transports[1 - rank]
        sent, received = torch.arange(count), torch.empty(count, dtype=torch.int64)
        deliveries = [transport.send(sent[index], waiting) for index in range(count)]
        deliveries += [transport.receive(received[index], waiting) for index in range(count)]
        return all(delivery.wait() for delivery in deliveries) and received.equal(sent)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(exchange, range(2))) == [True, True]
    for end in ends:
        end.close()
