"""What a GPU needs before its first tensor, so that it holds what was predicted."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

import torch

SETTINGS = "expandable_segments:True,large_segment_size_mb:12"
"""Of torch's allocator; memory is taken from the driver in pages as small as it takes them."""
_ALLOCATOR = "PYTORCH_ALLOC_CONF"
_OLDER_NAME = "PYTORCH_CUDA_ALLOC_CONF"


def prepare(device: torch.device) -> None:
    """Make a GPU ready, and count its peak from now on; nothing elsewhere."""
    if device.type == "cuda":
        ask_for_exact_blocks()
        enter_context(device)
        torch.cuda.reset_peak_memory_stats(device)


def ask_for_exact_blocks(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have torch's allocator cut every block to size, and cuBLASLt share the workspace of cuBLAS.

    Without expandable segments a block may be up to 1 MiB larger than what was asked for, and memory that is free but
    in pieces is lost. What a user has set stays. The allocator has read its settings by now, so it is told as well.
    """
    if not {_ALLOCATOR, _OLDER_NAME} & environment.keys():
        environment[_ALLOCATOR] = SETTINGS
        torch._C._accelerator_setAllocatorSettings(environment[_ALLOCATOR])
    environment.setdefault("TORCH_CUBLASLT_UNIFIED_WORKSPACE", "1")


def enter_context(device: torch.device) -> None:
    """Make the GPU current in the thread that runs backwards on it.

    Torch does it by itself in the first matrix product there, with a warning.
    """
    with torch.enable_grad():
        torch.ones((), device=device, requires_grad=True).mul(1.0).backward()  # type: ignore[no-untyped-call]
