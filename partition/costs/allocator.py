"""How a device's allocator hands out memory: the size of its blocks, what libraries take through it, what it keeps.

On the CPU, and on a simulated device, a buffer takes its own bytes. On CUDA torch's caching allocator stands between:

    reported by the driver
    |- headroom      left free, for fragmentation and for other programs
    |- context       the driver's own, kernels included: outside the allocator
    `- reserved      what the allocator has taken from the driver, in segments
       `- allocated  every buffer in a block of its own, a multiple of 512 bytes, and the workspaces of cuBLAS

Sources: torch's c10/cuda/CUDACachingAllocator (kMinBlockSize 512, kSmallBuffer 2 MiB, kLargeBuffer 20 MiB, kRoundLarge
2 MiB); aten/src/ATen/cuda/CublasHandlePool.cpp (workspaces); docs.nvidia.com/cuda/cublas, cublasSetWorkspace.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from partition.errors import PartitionError
from partition.units import format_bytes

CUDA_BLOCK_BYTES = 512
SMALL_SEGMENT_BYTES = 2 * 2**20
"""Holds blocks of at most 1 MiB; segments of their own, for 10 MiB and more, are multiples of it."""
LARGE_SEGMENT_BYTES = 20 * 2**20
"""Holds blocks of more than 1 MiB and less than 10 MiB."""
CUBLAS_THREADS = 2
"""Each has a handle and a workspace: forwards run in the main thread, backwards in the one autograd has for a GPU."""
NUM_ONES = 65536
"""On a GPU sums over rows are products with so many ones, which stay: with fewer, a host that sums a million rows is
longer at asking for products than the GPU is at computing them."""
_ONES_BYTES = {"float64": 8 * NUM_ONES, "float32": 4 * NUM_ONES, "bfloat16": (2 + 4) * NUM_ONES}
"""By the format of the arithmetic; beside bfloat16 stands the format of parameters."""
_WORKSPACE_BYTES = 2 * 4096 * 1024 + 8 * 16 * 1024
_LARGE_WORKSPACE_BYTES = 32 * 2**20
_LARGE_WORKSPACE_CAPABILITIES = (9, 10, 11, 12)
"""Major compute capabilities, Hopper and Blackwell."""


@dataclass(frozen=True, kw_only=True)
class AllocatorRules:
    """What a buffer takes, and what each rank's libraries take besides."""

    granularity_bytes: int = 1
    """Every buffer takes a multiple of it."""
    library_bytes: int = 0
    """Workspaces of matrix libraries and the like, allocated once and kept."""

    def block_bytes(self, num_bytes: int) -> int:
        """What a buffer takes; of a negative number, what one gives back."""
        blocks = -(-abs(num_bytes) // self.granularity_bytes) * self.granularity_bytes
        return blocks if num_bytes >= 0 else -blocks

    @staticmethod
    def strictest(rules: Iterable[AllocatorRules]) -> AllocatorRules:
        """The rules that count no device of a cluster short: the coarsest blocks, the largest workspaces."""
        every = tuple(rules)
        return AllocatorRules(
            granularity_bytes=max((one.granularity_bytes for one in every), default=1),
            library_bytes=max((one.library_bytes for one in every), default=0),
        )


EXACT = AllocatorRules()
"""Of the CPU and of simulated devices."""


def cuda_rules(
    capability: str | None, number_format: str = "float32", workspace_setting: str | None = None
) -> AllocatorRules:
    """The rules of a GPU of a compute capability, as in "9.0"; where it is not known, those that take most.

    `workspace_setting` is CUBLAS_WORKSPACE_CONFIG, as in ":4096:2:16:8" (KiB and count), where that is set. cuBLASLt
    takes its workspace out of cuBLAS's.
    """
    is_large = capability is None or int(capability.split(".")[0]) in _LARGE_WORKSPACE_CAPABILITIES
    default_bytes = _LARGE_WORKSPACE_BYTES if is_large else _WORKSPACE_BYTES
    parts = re.findall(r":([0-9]+):([0-9]+)", workspace_setting or "")
    workspace_bytes = sum(int(size) * 1024 * int(count) for size, count in parts) if parts else default_bytes
    blocks = AllocatorRules(granularity_bytes=CUDA_BLOCK_BYTES)
    return AllocatorRules(
        granularity_bytes=CUDA_BLOCK_BYTES,
        library_bytes=CUBLAS_THREADS * blocks.block_bytes(workspace_bytes) + _ONES_BYTES[number_format],
    )


def cuda_reserved_bytes(allocated_bytes: int) -> int:
    """What the caching allocator has taken from the driver when so much is allocated, gaps between blocks apart.

    Whole segments of 2 MiB, and one of 20 MiB of which only the smallest part may be in use.
    """
    return -(-allocated_bytes // SMALL_SEGMENT_BYTES) * SMALL_SEGMENT_BYTES + LARGE_SEGMENT_BYTES


@dataclass(frozen=True, kw_only=True)
class DeviceRoom:
    """What becomes of the memory of a GPU."""

    reported_bytes: int
    """By the driver."""
    headroom_bytes: int
    context_bytes: int

    @property
    def allocatable_bytes(self) -> int:
        """The most that may be allocated, so that what is reserved for it leaves context and headroom."""
        room = self.reported_bytes - self.headroom_bytes - self.context_bytes - LARGE_SEGMENT_BYTES
        return room // SMALL_SEGMENT_BYTES * SMALL_SEGMENT_BYTES

    def enough_bytes(self, allocated_bytes: int) -> int:
        """What the driver would have to report, for so much to be allocated beside the same context and headroom."""
        reserved = cuda_reserved_bytes(allocated_bytes) + self.context_bytes
        enough = math.ceil(reserved / (1 - self.headroom_bytes / self.reported_bytes))
        return enough + 2  # headroom and this are rounded up

    def check(self, name: str) -> None:
        """Raise PartitionError where nothing may be allocated."""
        if self.allocatable_bytes <= 0:
            reported, context, headroom = map(
                format_bytes, (self.reported_bytes, self.context_bytes, self.headroom_bytes)
            )
            raise PartitionError(
                f"cluster.devices: {name} has {reported}, of which {context} are for its context, {headroom} for "
                f"headroom and {format_bytes(LARGE_SEGMENT_BYTES)} for segments in part; give it more memory, or "
                "lower cluster.context or cluster.headroom"
            )
