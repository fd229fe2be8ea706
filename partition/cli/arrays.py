"""Inputs from a .npy file and outputs to one, a portion at a time. Imported by what needs NumPy anyway.

Shapes: N rows, B of them at once, I features in, O outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partition.data.dataset import compute_dtype
from partition.data.rows import Examples
from partition.errors import PartitionError

if TYPE_CHECKING:
    from partition.runtime import Fleet


def read_inputs(path: Path, in_features: int) -> NDArray[Any]:
    """The rows (N, I) of a .npy file, mapped into memory.

    Raises PartitionError for a file that does not hold such rows.
    """
    try:
        x_NI: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or "cut short"
        raise PartitionError(f"--input {path}: cannot be read ({reason}); give a .npy file of numbers") from None
    except (ValueError, EOFError, SyntaxError) as error:
        reason = " ".join(str(error).split())[:100]
        raise PartitionError(
            f"--input {path}: is no .npy file of numbers ({reason}); write it with numpy.save"
        ) from None
    found = f"{x_NI.shape} of {x_NI.dtype}" if isinstance(x_NI, np.ndarray) else "an archive"
    is_matrix = isinstance(x_NI, np.ndarray) and x_NI.ndim == 2 and x_NI.shape[1] == in_features
    if not is_matrix or x_NI.dtype.kind not in "fiub":
        raise PartitionError(f"--input {path}: is {found}, expected (N, {in_features}) real numbers; change the file")
    if len(x_NI) == 0:
        raise PartitionError(f"--input {path}: has no rows; give at least one")
    rows: NDArray[Any] = x_NI
    return rows


def outputs(fleet: Fleet, x_NI: Examples) -> Iterator[NDArray[Any]]:
    """The outputs (B, O) of one microbatch after another, so that more rows pass through than memory holds."""
    if not isinstance(x_NI, np.ndarray):
        yield from fleet.predict(x_NI)
        return
    size, dtype = fleet.candidate.microbatch_size, compute_dtype(fleet.search.config)
    for start in range(0, len(x_NI), size):
        yield from fleet.predict(np.ascontiguousarray(x_NI[start : start + size], dtype=dtype))


def write_rows(path: Path, portions: Iterator[NDArray[Any]], num_rows: int, *, is_classes: bool) -> None:
    """A .npy file of outputs (N, O), or of the classes (N,) of the largest, renamed once it is complete.

    Raises PartitionError where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for index, output_BO in enumerate(portions):
                rows = output_BO.argmax(axis=1) if is_classes else output_BO
                if index == 0:
                    header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (num_rows, *rows.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(rows.tobytes())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise PartitionError(f"--out-file {path}: cannot be written ({error.strerror}); choose another place") from None
