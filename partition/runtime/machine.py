"""Whether this machine has the devices and the memory that a candidate takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from partition.data.stores import free_bytes as host_free_bytes
from partition.errors import RunError
from partition.plan import Candidate, Search
from partition.units import format_bytes


def check_devices(search: Search, candidate: Candidate, host_ranks: Sequence[int] | None = None) -> None:
    """Refuse devices that are not there, kinds that do not mix, and what this machine cannot hold.

    `host_ranks` are the ranks with processes on this machine; without, all ranks are in this process. Raises RunError
    with both figures.
    """
    kinds = sorted({search.cluster.devices[plan.device_index].kind for plan in candidate.stages})
    if len(kinds) > 1 and ("simulated" in kinds or host_ranks is not None):
        raise RunError(
            f"{candidate.name} uses devices of kind {' and '.join(kinds)}, whose clocks and messages do not mix; give "
            "all devices of cluster.devices one kind"
        )
    ranks = range(candidate.num_devices) if host_ranks is None else host_ranks
    of_rank = {plan.rank: search.cluster.devices[plan.device_index].kind for plan in candidate.stages}
    num_cuda = sum(of_rank[rank] == "cuda" for rank in ranks)
    if num_cuda > torch.cuda.device_count():
        raise RunError(
            f"{candidate.name} takes {num_cuda} CUDA devices of this machine, torch sees {torch.cuda.device_count()}; "
            "plan here and train where they are, or set cluster.devices.kind=simulated"
        )
    assert candidate.predicted is not None, "what is trained has a layout"
    needed = sum(candidate.predicted.peak_bytes[rank] for rank in ranks if of_rank[rank] != "cuda")
    free = host_free_bytes()
    if free is not None and needed > free:
        raise RunError(
            f"{candidate.name} needs {format_bytes(needed)} of this machine's memory, {format_bytes(free)} are free; "
            "plan here and train on a larger machine, or take a smaller model"
        )
