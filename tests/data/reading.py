"""What a data set holds, read at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partition.data.rows import Examples


def read_all(examples: Examples) -> NDArray[Any]:
    """All rows as one array."""
    if isinstance(examples, np.ndarray):
        return examples
    out = np.empty(examples.shape, examples.dtype)
    examples.read(np.arange(len(examples)), out)
    return out
