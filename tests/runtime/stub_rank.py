"""One rank of a ring that passes a tensor round and round, for tests of what stands around a training loop.

    python -m stub_rank FOLDER [--patience S] [--grace S] [--steps N] [--fault RANK:FAULT]

Every rank writes its process's number to FOLDER once it has done a step, and says there that it has saved.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from partition.cli import worker
from partition.errors import PartitionError, RunError
from partition.runtime.liveness import Watch, connect


def main() -> int:
    options = parse()
    worker.begin()
    try:
        return run(options)
    except Exception as error:
        worker.leave(worker.report(error))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patience", type=float, default=60.0)
    parser.add_argument("--grace", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--fault", default="")
    return parser.parse_args()


def run(options: argparse.Namespace) -> int:
    store, rank, world_size = connect(options.patience)
    fault = options.fault.partition(":")[2] if options.fault.startswith(f"{rank}:") else ""
    if fault == "bad":
        raise PartitionError("in.yaml: no such file; give one that exists")
    last_words = worker.last_words
    watch = Watch(store, rank, world_size, patience_s=options.patience, grace_s=options.grace, last_words=last_words)
    with watch:
        timeout = timedelta(seconds=options.patience)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)
        for step in range(1, options.steps + 1):
            pass_on(watch, rank, world_size, step)
            if step == 1:
                (options.folder / f"{rank}.part").write_text(str(os.getpid()))
                os.replace(options.folder / f"{rank}.part", options.folder / f"{rank}.pid")
            if step == 3 and fault:
                commit(fault, watch)
            signum = agree(watch)
            if signum:
                watch.accept_stop()
                (options.folder / f"{rank}.saved").write_text(str(step))
                return 128 + signum
            time.sleep(0.01)
    print(f"rank {rank} of {world_size} is done, {os.environ.get('OMP_NUM_THREADS')} threads", flush=True)
    return 0


def pass_on(watch: Watch, rank: int, world_size: int, step: int) -> None:
    """Along the chain only, as a pipeline does: the first and the last are no neighbours."""
    x = torch.full((4,), float(step))
    try:
        if rank > 0:
            watch.doing = f"step {step}, receive from rank {rank - 1}"
            dist.recv(x, rank - 1)
        if rank < world_size - 1:
            watch.doing = f"step {step}, send to rank {rank + 1}"
            dist.send(x, rank + 1)
    except RuntimeError as error:
        raise watch.explain(error) from error


def agree(watch: Watch) -> int:
    stop = torch.tensor([watch.stop_requested])
    try:
        watch.doing += ", agreeing"
        dist.all_reduce(stop, dist.ReduceOp.MAX)
    except RuntimeError as error:
        raise watch.explain(error) from error
    return int(stop.item())


def commit(fault: str, watch: Watch) -> None:
    if fault == "run":
        raise RunError("step 3: loss is nan; try a tenth of the learning rate")
    if fault == "bug":
        raise KeyError("a bug")
    if fault == "exit":
        os._exit(7)
    if fault == "sleep":
        watch.doing = "a long nap"
        time.sleep(1000)
    assert fault == "bad", fault


if __name__ == "__main__":
    sys.exit(main())
