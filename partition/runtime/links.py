"""The links between processes, measured: half of a round trip, by size of the message."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from partition.runtime.process import Process
from partition.runtime.processes import ProcessWorld, join, leave
from partition.runtime.world import share_largest

SIZES_BYTES = (8, 1024, 16 * 1024, 256 * 1024, 4 * 2**20, 16 * 2**20)
REPEATS = 9
WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class LinkTime:
    """What a message between two ranks takes, one way."""

    source: int
    destination: int
    num_bytes: int
    seconds: float
    """Median."""
    worst_s: float


def measure_links(world: ProcessWorld, sizes_bytes: Sequence[int] = SIZES_BYTES) -> list[LinkTime]:
    """Messages between every two neighbours, one pair after another; all ranks call it together and know it all."""
    ranks = range(world.process.world_size - 1)
    found = [_measure(world, rank, size) for rank in ranks for size in sizes_bytes]
    table = share_largest(world, np.array(found).reshape(-1)).reshape(-1, 2)
    keys = [(rank, size) for rank in ranks for size in sizes_bytes]
    return [
        LinkTime(source=rank, destination=rank + 1, num_bytes=size, seconds=float(median_s), worst_s=float(worst_s))
        for (rank, size), (median_s, worst_s) in zip(keys, table, strict=True)
    ]


def _measure(world: ProcessWorld, first: int, num_bytes: int) -> tuple[float, float]:
    """Median and worst of half a round trip between two ranks, on the rank that begins; zeros elsewhere."""
    rank = world.process.rank
    if rank not in (first, first + 1):
        return 0.0, 0.0
    buffer = torch.zeros(num_bytes, dtype=torch.uint8, device=world.message_device)
    taken = []
    for _ in range(WARM_UP + REPEATS):
        start_s = time.perf_counter()
        if rank == first:
            dist.send(buffer, first + 1, group=world.down)
            dist.recv(buffer, first + 1, group=world.up)
        else:
            dist.recv(buffer, first, group=world.down)
            dist.send(buffer, first, group=world.up)
        if buffer.device.type == "cuda":
            torch.cuda.synchronize(buffer.device)
        taken.append((time.perf_counter() - start_s) / 2)
    if rank != first:
        return 0.0, 0.0
    return statistics.median(taken[WARM_UP:]), max(taken[WARM_UP:])


def main(path: Path, kind: str) -> None:
    """Measure as one rank of several; the first writes what all know as JSON."""
    process = Process.of_environment()
    assert process is not None, "torchrun starts it"
    join(process, timeout_s=60)
    world = ProcessWorld(process, num_replicas=1, is_cuda=kind == "cuda", timeout_s=60)
    found = measure_links(world)
    if process.rank == 0:
        path.write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
