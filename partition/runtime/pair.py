"""Two processes of this machine that exchange a message, to see whether a backend works here.

python -m partition.runtime.pair BACKEND PORT RANK        (one of the two; `try_pair` starts both)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, only not marked as exported

from partition.errors import RunError

NUM_VALUES = 2**18
PATIENCE_S = 60.0


def try_pair(backend: str, patience_s: float = PATIENCE_S) -> float:
    """Seconds that a message of 1 MiB takes there and back between two processes.

    Raises RunError where they do not get that far, with the last line that either of them printed.
    """
    store = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=patience_s), wait_for_workers=False)
    command = [sys.executable, "-m", "partition.runtime.pair", backend, str(store.port)]
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        quiet["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    pair = [
        subprocess.Popen(
            [*command, str(rank)], env=os.environ | quiet, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        return _result(pair, patience_s)
    finally:
        for process in pair:
            process.kill()
            process.communicate()


def _result(pair: list[subprocess.Popen[str]], patience_s: float) -> float:
    until_s = time.monotonic() + patience_s
    try:
        ends = [process.communicate(timeout=max(0.1, until_s - time.monotonic())) for process in pair]
    except subprocess.TimeoutExpired:
        raise RunError(f"no message within {patience_s:g} s") from None
    for process, (_, errors) in zip(pair, ends, strict=True):
        if process.returncode != 0:
            last = (errors.strip().splitlines() or [f"ended with {process.returncode}"])[-1]
            raise RunError(last[:200])
    return float(ends[0][0])


def exchange(backend: str, port: int, rank: int) -> float:
    """One of the two: the message goes to rank 1 and back, once to connect and once more for the clock."""
    patience = timedelta(seconds=PATIENCE_S)
    store = TCPStore("127.0.0.1", port, None, False, patience)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    dist.init_process_group(backend, store=store, rank=rank, world_size=2, timeout=patience)
    message = torch.full((NUM_VALUES,), float(rank), device=device)
    took_s = 0.0
    for _ in range(2):
        start_s = time.perf_counter()
        for sender in (0, 1):
            (dist.send if sender == rank else dist.recv)(message, 1 - rank)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took_s = time.perf_counter() - start_s
    if float(message.sum().item()) != 0.0:
        raise RunError("the message arrived changed")
    dist.destroy_process_group()
    return took_s


if __name__ == "__main__":
    print(exchange(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
