"""Split the graph over devices or shrink the minibatch: exact memory, measured time, one answer.

>>> import partition
>>> config = partition.load_config("configs/mnist.yaml")  # doctest: +SKIP
>>> partition.compare(config).verdict  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partition.config import load_config
    from partition.errors import PartitionError
    from partition.plan import compare
    from partition.runtime import build_module, from_torch

__all__ = ["PartitionError", "build_module", "compare", "from_torch", "load_config"]

_HOME = {
    "PartitionError": "partition.errors",
    "build_module": "partition.runtime",
    "compare": "partition.plan",
    "from_torch": "partition.runtime",
    "load_config": "partition.config",
}


def __getattr__(name: str) -> Any:
    """Import on first use: planning needs no torch, and importing the package neither."""
    if name not in _HOME:
        raise AttributeError(f"module 'partition' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
