"""A device: where tensors come from, with a ledger that counts them and a limit that is enforced."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from partition.costs import AllocatorRules, Device
from partition.errors import DeviceMemoryError, RunError
from partition.graph import Category
from partition.units import format_bytes


class TensorSource(Protocol):
    """Where a stage's tensors come from."""

    def take(
        self, shape: tuple[int, ...], category: Category, purpose: str, dtype: torch.dtype | None = None
    ) -> Tensor:
        """A new tensor of undefined content."""

    def give(self, tensor: Tensor, category: Category) -> None:
        """Take a tensor back."""


class RuntimeDevice:
    """Hands out and takes back the tensors of one device.

    Every training tensor comes from `take` and goes back through `give` at a fixed point of the action list, so the
    ledger depends on the schedule alone, never on when a message happens to arrive. The caller drops its references
    when it gives: the memory is then free in truth.
    """

    def __init__(
        self,
        spec: Device,
        dtype: torch.dtype,
        torch_device: torch.device | None = None,
        rules: AllocatorRules | None = None,
    ) -> None:
        self.spec = spec
        self.rules = spec.rules if rules is None else rules
        self.dtype = dtype
        self.torch_device = torch_device or torch.device(spec.name if spec.kind == "cuda" else "cpu")
        self.held_bytes = 0
        self.peak_bytes = 0
        self._held: Counter[Category] = Counter()

    @property
    def name(self) -> str:
        """Kind and index, as in simulated:2."""
        return self.spec.name

    @property
    def held_by_category(self) -> Mapping[Category, int]:
        """Bytes handed out now, by what they are for."""
        return dict(self._held)

    def take(
        self, shape: tuple[int, ...], category: Category, purpose: str, dtype: torch.dtype | None = None
    ) -> Tensor:
        """A new tensor of undefined content.

        Raises DeviceMemoryError where too few bytes are left.
        """
        dtype = dtype or self.dtype
        self.count(math.prod(shape) * dtype.itemsize, category, purpose)
        return torch.empty(shape, dtype=dtype, device=self.torch_device)

    def count(self, num_bytes: int, category: Category, purpose: str) -> None:
        """Enter a buffer into the ledger, negative to take it out again: what a library allocates by itself.

        What is entered is the block that the allocator gives for it. Raises DeviceMemoryError where too few bytes are
        left.
        """
        num_bytes = self.rules.block_bytes(num_bytes)
        held = self.held_bytes + num_bytes
        if held > self.spec.memory_bytes:
            raise DeviceMemoryError(
                device=self.name,
                wanted_bytes=num_bytes,
                free_bytes=self.spec.memory_bytes - self.held_bytes,
                limit_bytes=self.spec.memory_bytes,
                purpose=purpose,
            )
        self.held_bytes = held
        self._held[category] += num_bytes
        if held > self.peak_bytes:
            self.peak_bytes = held

    def check_free(self, reserved_bytes: int) -> None:
        """Raise RunError where a GPU has less free, its context apart, than the allocator is to take of it."""
        if self.torch_device.type != "cuda":
            return
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.torch_device)
        # What an earlier run of this process has left in the allocator can be had again.
        cached_bytes = torch.cuda.memory_reserved(self.torch_device) - torch.cuda.memory_allocated(self.torch_device)
        if reserved_bytes > free_bytes + cached_bytes:
            free, total = format_bytes(free_bytes + cached_bytes), format_bytes(total_bytes)
            raise RunError(
                f"{self.name} has {free} of {total} free, the plan reserves {format_bytes(reserved_bytes)}; end what "
                "else runs there, or plan with a larger cluster.headroom"
            )

    def give(self, tensor: Tensor, category: Category) -> None:
        """Count a tensor as returned; the caller holds no reference to it afterwards."""
        self.count(-tensor.numel() * tensor.element_size(), category, "")

    @property
    def measured_peak_bytes(self) -> int:
        """The most that was allocated at once: by the GPU's allocator, elsewhere by the ledger."""
        if self.spec.kind != "cuda":
            return self.peak_bytes
        return int(torch.cuda.max_memory_allocated(self.torch_device))

    def synchronize(self) -> None:
        """Wait until everything submitted to the device has run."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)
