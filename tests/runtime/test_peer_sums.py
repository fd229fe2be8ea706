from __future__ import annotations

import pytest
import torch

from partition.runtime.peer_sums import PIECE_BYTES
from tests.runtime.events import peak, recorded
from tests.runtime.ranks import run_ranks
from tests.runtime.test_peer_memory import world

SIZES = (1, 2, 5, 1000, PIECE_BYTES // 4 * 3 + 7)


def tensors_of(rank: int, seed: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed * 100 + rank)
    return [torch.randn(size, generator=generator, dtype=dtype).reshape(-1, 1) for size in SIZES]


def sums(dtype: torch.dtype) -> tuple[bool, bool, int]:
    """Two sums at once, waited for in turn; whether they are the single process's, to the last bit."""
    this = world()
    rank, size = this.process.rank, this.process.world_size
    begin = this.sum_over(range(size), this.down)
    mine = [tensors_of(rank, seed, dtype) for seed in range(2)]
    with recorded() as events:
        under_way = [begin(tensors, lambda: "a sum") for tensors in mine]
        assert all(delivery.wait() and delivery.wait() for delivery in under_way)
    is_same = True
    for seed in range(2):
        expected = tensors_of(0, seed, dtype)
        for other in range(1, size):
            for total, addend in zip(expected, tensors_of(other, seed, dtype), strict=True):
                total.add_(addend)
        is_same &= all(torch.equal(one, two) for one, two in zip(mine[seed], expected, strict=True))
    this.close()
    return this.reads_memory, is_same, peak(events)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_are_those_of_one_process_and_take_no_memory(world_size: int, dtype: torch.dtype) -> None:
    assert run_ranks(world_size, sums, dtype) == [(True, True, 0)] * world_size
