"""Run a function in several processes that find each other as torchrun's do, and collect what they return."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

# Forked from a clean process that has imported torch once: starting a rank takes a tenth of a second.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.runtime.preloaded"])


class RankError(Exception):
    """A rank raised; the text is its traceback."""


def run_ranks(world_size: int, function: Callable[..., Any], *arguments: Any, limit_s: float = 60.0) -> list[Any]:
    """What the function returns on every rank, in order; it must be found by name in its module.

    Raises RankError with the traceback of the first rank that failed.
    """
    port = free_port()
    pipes, processes = [], []
    for rank in range(world_size):
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_run, args=(rank, world_size, port, sender, function, arguments))
        process.start()
        sender.close()
        pipes.append(receiver)
        processes.append(process)
    try:
        answers = [pipe.recv() if pipe.poll(limit_s) else (False, "no answer in time") for pipe in pipes]
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
    for is_well, answer in answers:
        if not is_well:
            raise RankError(answer)
    return [answer for _, answer in answers]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _run(
    rank: int, world_size: int, port: int, sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    try:
        sender.send((True, function(*arguments)))
    except BaseException:
        sender.send((False, f"rank {rank}\n{traceback.format_exc()}"))
