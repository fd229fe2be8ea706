"""Before any tensor is sent: all ranks are about to do the same, or it is said which is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta

import numpy as np
import torch
from torch._C._distributed_c10d import Store

from partition.config import flatten, resolve
from partition.errors import PartitionError, RunError
from partition.plan import Candidate, Search
from partition.runtime.process import Process


def facts(search: Search, candidate: Candidate, num_train: int) -> dict[str, object]:
    """What all ranks must have alike: versions, experiment, candidate, data."""
    found: dict[str, object] = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "byte order": sys.byteorder,
        "training examples": num_train,
    }
    found |= flatten(resolve(search.config))
    found |= {f"candidate.{key}": value for key, value in flatten(asdict(candidate))}
    return found


def agree(process: Process, store: Store, mine: Mapping[str, object], timeout_s: float) -> None:
    """Make sure that all ranks are about to do the same, before any tensor is sent.

    Raises PartitionError naming a rank and the first fact in which it differs from rank 0.
    """
    store.set(f"facts/{process.rank}", json.dumps(mine))
    keys = [f"facts/{rank}" for rank in range(process.world_size)]
    try:
        store.wait(keys, timedelta(seconds=timeout_s))
    except RuntimeError:
        missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
        names = ", ".join(map(str, missing))
        raise RunError(f"rank {names} did not come within {timeout_s:g} s (training.timeout)") from None
    of_ranks = [json.loads(store.get(key)) for key in keys]
    store.set(f"read/{process.rank}", "")
    # Where rank 0 keeps the store itself, it must not leave with it before the others have read.
    with suppress(RuntimeError):
        store.wait([f"read/{rank}" for rank in range(process.world_size)], timedelta(seconds=5))
    check_agreement(of_ranks)


def check_agreement(of_ranks: Sequence[Mapping[str, object]]) -> None:
    """Raise PartitionError where the facts of a rank are not those of rank 0."""
    for rank, of_rank in enumerate(of_ranks):
        for name in [*of_ranks[0], *(key for key in of_rank if key not in of_ranks[0])]:
            expected, found = of_ranks[0].get(name), of_rank.get(name)
            if expected != found:
                raise PartitionError(
                    f"rank {rank} has {name} {_short(found)}, rank 0 has {_short(expected)}; start every rank with the "
                    "same experiment, arguments and versions"
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
