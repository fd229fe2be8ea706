"""Examples that mean nothing, for runs of which only the time or the memory matters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.data.dataset import compute_dtype
from partition.plan import Search


def made_up_examples(search: Search, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Inputs and targets of so many examples, of the shapes that the network takes."""
    random, network = np.random.default_rng(0), search.network
    dtype, out_features = compute_dtype(search.config), network.layers[-1].out_features
    x = random.standard_normal((size, network.layers[0].in_features)).astype(dtype)
    if network.loss.has_class_targets:
        return x, random.integers(0, out_features, size)
    return x, random.standard_normal((size, out_features)).astype(dtype)
