"""What processes tell each other about a checkpoint, over numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from partition.runtime.checkpoint.agreement import Numbers, agree, alone, share_json
from partition.runtime.checkpoint.files import DiskError


class Table:
    """Ranks as threads: all put down their numbers, then all read them."""

    def __init__(self, num_ranks: int) -> None:
        self.barrier = threading.Barrier(num_ranks, timeout=10)
        self.given: list[Any] = [None] * num_ranks

    def share(self, rank: int) -> Callable[[Numbers], list[Numbers]]:
        def give(numbers: Numbers) -> list[Numbers]:
            self.given[rank] = numbers
            self.barrier.wait()
            every = list(self.given)
            self.barrier.wait()
            assert len({len(one) for one in every}) == 1
            return every

        return give


def on_all_ranks(num_ranks: int, work: Callable[[int, Callable[[Numbers], list[Numbers]]], Any]) -> list[Any]:
    table, results = Table(num_ranks), [None] * num_ranks

    def run(rank: int) -> None:
        try:
            results[rank] = work(rank, table.share(rank))
        except DiskError as error:
            results[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(num_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_process_by_itself_hears_itself() -> None:
    document = {"name": "ä", "list": [1, None, 2.5]}
    assert share_json(alone, document) == [document]


def test_documents_of_different_lengths_reach_all_by_rank() -> None:
    documents = [["x" * 10], [], {"a": "y" * 1000}]
    assert on_all_ranks(3, lambda rank, share: share_json(share, documents[rank])) == [documents] * 3


def test_an_error_of_one_is_raised_by_all_and_its_own_unchanged() -> None:
    errors = [None, DiskError("disk is full"), None]
    assert on_all_ranks(3, lambda rank, share: agree(share, errors[rank])) == [
        "rank 1: disk is full",
        "disk is full",
        "rank 1: disk is full",
    ]


def test_without_errors_nothing_is_raised() -> None:
    agree(alone, None)
    with pytest.raises(DiskError):
        agree(alone, DiskError("full"))
    assert np.array_equal(alone(np.ones(2))[0], np.ones(2))
