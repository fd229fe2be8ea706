"""A table of layer costs (CSV), read strictly: every refusal is one line with line, column, value, limit and remedy.

name,forward_s,backward_s,activation_bytes,parameter_bytes[,input_grad_s,weight_grad_s][,saved_bytes][,optimizer_bytes]
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from partition.errors import PartitionError

LARGEST_FILE_BYTES = 64 * 2**20
MOST_LAYERS = 100_000
LARGEST_S = 1e9
LEAST_TOTAL_S = 1e-12
HALVES_TOLERANCE = 0.5
"""By how much of backward_s input_grad_s + weight_grad_s may differ from it: both are measured, in different steps."""
LARGEST_BYTES = 2**60
"""Of one cell and of a column together, so that all sums over stages stay exact 64-bit integers."""

REQUIRED = ("name", "forward_s", "backward_s", "activation_bytes", "parameter_bytes")
OPTIONAL = ("input_grad_s", "weight_grad_s", "saved_bytes", "optimizer_bytes")
_LONGEST_NAME = 200
_LONGEST_NUMBER = 60
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One row: seconds and bytes of one layer for one microbatch."""

    name: str
    forward_s: float
    backward_s: float
    activation_bytes: int
    """The layer's output: what a cut after it carries."""
    parameter_bytes: int
    input_grad_s: float | None = None
    weight_grad_s: float | None = None
    saved_bytes: int | None = None
    """Kept between F and B, the layer's input included where its backward needs it."""
    optimizer_bytes: int = 0
    """The optimizer's state for its parameters."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Layers one after another, as a table gives them."""

    source: str
    """The file, for messages."""
    layers: tuple[LayerCost, ...]

    @property
    def has_memory(self) -> bool:
        """Whether it says what is kept between F and B."""
        return self.layers[0].saved_bytes is not None

    @property
    def splits_backward(self) -> bool:
        """Whether it gives the two halves of the backward."""
        return self.layers[0].input_grad_s is not None

    def require_memory(self, what: str) -> None:
        """Raise PartitionError where `what` limits memory and the table has no memory."""
        if not self.has_memory:
            raise PartitionError(
                f"{self.source}: has no column saved_bytes, without which {what} cannot be kept to; add it: the bytes "
                "that each layer keeps between its forward and its backward"
            )


class _Row(NamedTuple):
    """The cells of a line that is not blank."""

    line: int
    cells: list[str]


def read_chain(path: str | Path) -> Chain:
    """The chain of a file. Raises PartitionError for anything but a table of layer costs."""
    file = _show(str(path))
    rows = _rows(_read_text(Path(path), file), file)
    header = next(rows, None)
    if header is None:
        raise PartitionError(f"{file}: is empty; its first line is the header {','.join(REQUIRED)}")
    columns = _columns(header, file)
    layers: list[LayerCost] = []
    for row in rows:
        if len(layers) == MOST_LAYERS:
            raise PartitionError(f"{file}:{row.line}: more than {MOST_LAYERS:,} layers, the most; join some into one")
        layers.append(_layer(row, columns, file))
    if not layers:
        raise PartitionError(f"{file}: has a header and no layers; add one line for each layer")
    _check_sums(layers, file)
    return Chain(source=file, layers=tuple(layers))


# From bytes to cells


def _read_text(path: Path, file: str) -> str:
    try:
        mode = path.stat().st_mode
        # A pipe or a terminal is not opened: it would be waited for without end.
        content = _read_start(path) if stat.S_ISREG(mode) else b""
    except (FileNotFoundError, NotADirectoryError):
        raise PartitionError(f"{file}: there is no such file; check the path") from None
    except OSError as error:
        raise PartitionError(f"{file}: cannot be read: {error.strerror}; check the file") from None
    except ValueError:
        raise PartitionError(f"{file}: the path holds a null character; check it") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise PartitionError(f"{file}: is {kind}; name a CSV file of layer costs")
    return _decode(content, file)


def _read_start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(LARGEST_FILE_BYTES + 1)


def _decode(content: bytes, file: str) -> str:
    if len(content) > LARGEST_FILE_BYTES:
        raise PartitionError(f"{file}: is larger than 64 MiB, the limit; name a CSV file of layer costs")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise PartitionError(f"{file}: is text in UTF-16; save it as UTF-8")
    if b"\0" in content:
        raise PartitionError(f"{file}: is a binary file; name a CSV file of layer costs")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PartitionError(f"{file}:{line}: is not text in UTF-8; save it as UTF-8") from None


def _rows(text: str, file: str) -> Iterator[_Row]:
    """The rows that hold anything; blank lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise PartitionError(f"{file}:{line}: {_show(str(error))}; name a CSV file of layer costs") from None
        if cells is None:
            return
        if any("\n" in cell or "\r" in cell for cell in cells):
            raise PartitionError(f"{file}:{line}: a quote is opened and not closed on its line; close it")
        if len(cells) > 1 or any(cell.strip() for cell in cells):
            yield _Row(line, [cell.strip() for cell in cells])


# From cells to layers


def _columns(header: _Row, file: str) -> tuple[str, ...]:
    """The names of the columns, in their order."""
    place, names = f"{file}:{header.line}", header.cells
    if len(names) == 1 and re.search("[;\t|]", names[0]):
        raise PartitionError(f"{place}: the header {_show(repr(names[0]))} has no commas; separate columns by commas")
    known = (*REQUIRED, *OPTIONAL)
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None and not set(names) & set(known):
        raise PartitionError(
            f"{place}: the first line is no header (it begins with {_show(repr(names[0]))}); write {','.join(REQUIRED)}"
        )
    if unknown is not None:
        close = get_close_matches(unknown.lower()[:100], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"remove it; known are {', '.join(known)}"
        raise PartitionError(f"{place}: unknown column {_show(repr(unknown))}; {hint}")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise PartitionError(f"{place}: column {repeated} is there {names.count(repeated)} times; keep one of them")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise PartitionError(f"{place}: column {missing[0]} is missing; the header is {','.join(REQUIRED)}")
    halves = [name for name in ("input_grad_s", "weight_grad_s") if name in names]
    if len(halves) == 1:
        raise PartitionError(f"{place}: column {halves[0]} is alone; give input_grad_s and weight_grad_s, or neither")
    return tuple(names)


def _layer(row: _Row, columns: Sequence[str], file: str) -> LayerCost:
    if len(row.cells) != len(columns):
        raise PartitionError(
            f"{file}:{row.line}: has {len(row.cells)} cells, the header has {len(columns)}; give one for each column "
            "(a name with a comma in quotes)"
        )
    cells = dict(zip(columns, row.cells, strict=True))
    name = cells.pop("name")
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise PartitionError(
            f"{file}:{row.line}: name: {_show(repr(name))} is no name; write 1 to {_LONGEST_NAME} printable characters"
        )
    seconds = {column: _seconds(cell, _place(file, row, column)) for column, cell in cells.items() if _is_s(column)}
    _check_halves(seconds, f"{file}:{row.line}")
    sizes = {column: _size(cell, _place(file, row, column)) for column, cell in cells.items() if not _is_s(column)}
    return LayerCost(
        name=name,
        forward_s=seconds["forward_s"],
        backward_s=seconds["backward_s"],
        activation_bytes=sizes["activation_bytes"],
        parameter_bytes=sizes["parameter_bytes"],
        input_grad_s=seconds.get("input_grad_s"),
        weight_grad_s=seconds.get("weight_grad_s"),
        saved_bytes=sizes.get("saved_bytes"),
        optimizer_bytes=sizes.get("optimizer_bytes", 0),
    )


def _check_halves(seconds: Mapping[str, float], place: str) -> None:
    """Refuse halves that are not those of the backward: schedules that split it could not be compared with others."""
    if "input_grad_s" not in seconds:
        return
    whole_s, halves_s = seconds["backward_s"], seconds["input_grad_s"] + seconds["weight_grad_s"]
    if abs(halves_s - whole_s) > HALVES_TOLERANCE * whole_s:
        raise PartitionError(
            f"{place}: input_grad_s + weight_grad_s is {halves_s:g} s, backward_s {whole_s:g}; they may differ by "
            f"{HALVES_TOLERANCE:.0%} of backward_s; measure the three again, or leave the first two columns out"
        )


def _is_s(column: str) -> bool:
    return column.endswith("_s")


def _place(file: str, row: _Row, column: str) -> str:
    return f"{file}:{row.line}: {column}"


def _number(cell: str, place: str, example: str) -> float:
    if not cell:
        raise PartitionError(f"{place}: is empty; write a number such as {example}")
    if len(cell) > _LONGEST_NUMBER or not _NUMBER.fullmatch(cell):
        raise PartitionError(f"{place}: {_show(repr(cell))} is not a finite number; write one such as {example}")
    value = float(cell)
    if value < 0:
        raise PartitionError(f"{place}: {_show(cell)} is negative; the least is 0")
    return value


def _seconds(cell: str, place: str) -> float:
    value = _number(cell, place, "1.5e-3 (seconds)")
    if value > LARGEST_S:
        raise PartitionError(f"{place}: {_show(cell)} seconds are too many; the most is {LARGEST_S:g}")
    return value


def _size(cell: str, place: str) -> int:
    value = _number(cell, place, "4096 (bytes)")
    if value > LARGEST_BYTES:
        raise PartitionError(f"{place}: {_show(cell)} bytes are too many; the most is {LARGEST_BYTES} (1 EiB)")
    if cell.isdecimal():
        return int(cell)  # as written: a float would round it from 2**53 on
    if not value.is_integer():
        raise PartitionError(f"{place}: {_show(cell)} is not a whole number of bytes; write {math.ceil(value)}")
    return int(value)


def _check_sums(layers: Sequence[LayerCost], file: str) -> None:
    """Refuse what no planner could use: no time at all, more bytes than there are."""
    total_s = math.fsum(layer.forward_s + layer.backward_s for layer in layers)
    if total_s < LEAST_TOTAL_S:
        raise PartitionError(
            f"{file}: forward_s and backward_s of all layers come to {total_s:g} s, the least is {LEAST_TOTAL_S:g}; "
            "give measured seconds"
        )
    for column in ("activation_bytes", "parameter_bytes", "saved_bytes", "optimizer_bytes"):
        total = sum(getattr(layer, column) or 0 for layer in layers)
        if total > LARGEST_BYTES:
            raise PartitionError(
                f"{file}: {column} of all layers come to {total} bytes, the most is {LARGEST_BYTES} (1 EiB); are these "
                "bytes of one microbatch?"
            )


def _show(text: str) -> str:
    """A name or a value for a message: on one line, and not longer than a person reads."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= 120 else f"{shown[:57]}...{shown[-60:]}"
