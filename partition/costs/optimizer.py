"""What an optimizer stores for each parameter and does in a step."""

from __future__ import annotations

from dataclasses import dataclass

from partition.config import OptimizerConfig
from partition.costs.allocator import EXACT, AllocatorRules


@dataclass(frozen=True, kw_only=True)
class OptimizerRecord:
    """State and work of one optimizer, as torch.optim's fused kernels implement it."""

    state_copies: int
    """State tensors of the parameter's own size."""
    state_bytes_per_tensor: int
    """Further state of each parameter tensor: the step count of Adam, one float32."""
    workspace_bytes: int
    """Temporaries of the step kernel, whatever the parameters."""
    flop_per_element: int

    def state_bytes(self, elements: int, tensors: int, itemsize: int, rules: AllocatorRules = EXACT) -> int:
        """Bytes of state for `tensors` parameter tensors of `elements` elements together.

        Where the allocator rounds, give the bytes of all tensors' blocks as so many elements of one byte.
        """
        per_tensor = rules.block_bytes(self.state_bytes_per_tensor)
        return self.state_copies * elements * itemsize + per_tensor * tensors


def optimizer_record(config: OptimizerConfig) -> OptimizerRecord:
    """The record of the configured optimizer."""
    if config.name == "sgd":
        copies = 1 if config.momentum > 0 else 0
        return OptimizerRecord(
            state_copies=copies, state_bytes_per_tensor=0, workspace_bytes=0, flop_per_element=2 + 2 * copies
        )
    return OptimizerRecord(state_copies=2, state_bytes_per_tensor=4, workspace_bytes=12, flop_per_element=16)
