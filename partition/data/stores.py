"""Arrays of the user's, opened: rows by their index, in memory or in place in their file.

In place means read by position, not mapped: the same page cache serves both, but rows that have been used do not stay
in the process's memory, and a file that shrinks under a run is an error and not a SIGBUS.

Shapes: N examples, I values in each.
"""

from __future__ import annotations

import gzip
import os
import weakref
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from partition.data.cells import read_cells
from partition.data.items import take_part
from partition.data.npz import ZIP_ERRORS
from partition.data.outline import Cells, Items, Outline, Packed, Raw
from partition.data.refusal import DataError, show
from partition.units import format_bytes

_PORTION_BYTES = 2**20


class Store(Protocol):
    """An array (N, I) of plain numbers."""

    outline: Outline

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these indices, which are sorted, as a new array (len(rows), I) of the array's own type.

        Raises DataError where the file is not what it was.
        """


class InMemory:
    """An array read whole."""

    def __init__(self, outline: Outline, values_NI: NDArray[Any]) -> None:
        self.outline = outline
        self._values_NI = values_NI

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copies of the rows."""
        return self._values_NI[rows]


class InFile:
    """An array that stays in its file, row after row."""

    def __init__(self, outline: Outline, place: Raw) -> None:
        self.outline = outline
        self._offset = place.offset
        try:
            self._descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise outline.refuse(f"cannot be read: {error.strerror}; check the file") from None
        weakref.finalize(self, os.close, self._descriptor)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Reads the rows, neighbours at once."""
        row_bytes = self.outline.width * self.outline.itemsize
        raw = np.empty((len(rows), row_bytes), np.uint8)
        ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        start = 0
        for end in ends if len(rows) else ():
            self._read(raw[start:end], int(rows[start]) * row_bytes)
            start = end
        return raw.view(self.outline.dtype)

    def _read(self, into: NDArray[np.uint8], position: int) -> None:
        view = into.reshape(-1).data
        position += self._offset
        while view:
            try:
                count = os.preadv(self._descriptor, [view], position)
            except OSError as error:
                raise self.outline.refuse(f"cannot be read: {error.strerror}; check the file") from None
            if not count:
                raise self.outline.refuse(f"ends before byte {position}: it has been cut off; get the file again")
            view, position = view[count:], position + count


class InItems:
    """A part of the items of a Dataset, each made when it is asked for."""

    def __init__(self, outline: Outline, place: Items) -> None:
        self.outline = outline
        self._place = place

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Asks for the items one after another."""
        taken = np.empty((len(rows), *self.outline.shape[1:]), self.outline.dtype)
        for at, index in enumerate(rows.tolist()):
            part = take_part(self._place.dataset, index, self._place.part, self.outline.key, self.outline.name)
            if part.shape != taken.shape[1:] or not np.can_cast(part.dtype, taken.dtype, "same_kind"):
                raise self.outline.refuse(
                    f"are {part.dtype} of shape {part.shape} in item {index}, and {taken.dtype} of shape "
                    f"{taken.shape[1:]} in item 0; make all items alike"
                )
            taken[at] = part
        return taken.reshape(len(rows), -1)


def open_store(outline: Outline) -> Store:
    """The array, read whole where its file allows nothing else.

    Raises DataError: the file is damaged, or what must be read whole does not fit in memory.
    """
    match outline.place:
        case Items() as place:
            return InItems(outline, place)
        case Cells() as place:
            _check_memory(outline, "convert it to .npy, which is read in place")
            return InMemory(outline, read_cells(outline, place))
        case Raw() as place if not outline.is_columns_first:
            return InFile(outline, place)
        case Raw() as place:
            _check_memory(outline, "save it by rows (numpy.ascontiguousarray), and it is read in place")
            return InMemory(outline, _by_columns(outline, place))
        case Packed() as place:
            _check_memory(outline, "unpack it (numpy.savez, gunzip), and it is read in place")
            return InMemory(outline, _unpack(outline, place))


def free_bytes() -> int | None:
    """Memory that the operating system says can be had without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _check_memory(outline: Outline, remedy: str) -> None:
    free = free_bytes()
    if free is not None and outline.num_bytes > free:
        raise outline.refuse(
            f"must be read whole and takes {format_bytes(outline.num_bytes)}, {format_bytes(free)} are free; {remedy}"
        )


def _by_columns(outline: Outline, place: Raw) -> NDArray[Any]:
    """The rows of an array whose columns are next to each other in its file: read whole, as if they were rows."""
    return _arrange(InFile(outline, place).take(np.arange(outline.num_rows)), outline)


def _arrange(values: NDArray[Any], outline: Outline) -> NDArray[Any]:
    """All values of a file, in its order, as rows."""
    order = "F" if outline.is_columns_first else "C"
    shaped: NDArray[Any] = np.reshape(values.reshape(-1), outline.shape, order=order)  # type: ignore[call-overload]
    return shaped.reshape(outline.num_rows, outline.width)


def _open(place: Packed, stack: ExitStack) -> IO[bytes]:
    """The file unpacked, at its first value."""
    if place.member is None:
        stream = cast(IO[bytes], stack.enter_context(gzip.GzipFile(place.path)))
    else:
        stream = stack.enter_context(stack.enter_context(zipfile.ZipFile(place.path)).open(place.member))
    stream.read(place.offset)
    return stream


def _unpack(outline: Outline, place: Packed) -> NDArray[Any]:
    """All values, and not a byte more; the checksum at the end is read, and so checked."""
    try:
        raw = np.empty(outline.num_bytes, np.uint8)
        with ExitStack() as stack:
            _fill(raw, _open(place, stack), outline)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise outline.refuse(f"is cut off or damaged ({show(error)}); get the file again") from None
    except DataError:
        raise
    except ZIP_ERRORS as error:
        raise outline.refuse(f"cannot be read ({show(error)}); get the file again") from None
    return _arrange(raw.view(outline.dtype), outline)


def _fill(raw: NDArray[np.uint8], stream: IO[bytes], outline: Outline) -> None:
    done = 0
    while part := stream.read(_PORTION_BYTES):
        if done + len(part) > len(raw):
            raise outline.refuse(f"holds more than the {len(raw)} bytes that its header says; get the file again")
        raw[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    if done < len(raw):
        raise outline.refuse(f"holds {done} bytes, and its header says {len(raw)}; get the file again")
