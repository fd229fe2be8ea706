"""A table of numbers as text (CSV): which columns it has and how many lines; read line by line, never whole."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from partition.config import DataConfig
from partition.data.idx import Pair
from partition.data.outline import Cells, Outline, check_outline
from partition.data.refusal import DataError, file_bytes, show

LONGEST_LINE_BYTES = 16 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line that is not blank: its number in the file, from 1, and its text."""

    number: int
    text: str


class _Columns(NamedTuple):
    names: list[str]
    has_header: bool


def outline_csv(data: DataConfig) -> tuple[Pair, Pair | None]:
    """What the experiment's tables hold: for training and, where one is named, held out. Counts the lines.

    Raises DataError, AbsentDataError.
    """
    assert data.path is not None, "the schema asks for it"
    train = _outline_table(data, data.path, "data.path")
    return train, None if data.test_path is None else _outline_table(data, data.test_path, "data.test_path")


def _outline_table(data: DataConfig, path: str, key: str) -> Pair:
    lines = read_lines(path, key)
    first = next(lines, None)
    if first is None:
        raise DataError(key, f"{show(path)} has no lines; name a table of numbers")
    columns = _read_columns(first, data, path, key)
    num_rows = sum(1 for _ in lines) + (not columns.has_header)
    if not num_rows:
        raise DataError(key, f"{show(path)} has a header and no other line; name a table of numbers")
    targets = [_find_column(name, columns, path) for name in data.target]
    features = [index for index in range(len(columns.names)) if index not in targets]
    if not features:
        raise DataError("data.target", f"leaves no column of {show(path)} for features; it has {len(columns.names)}")

    def outline(chosen: list[int], shape: tuple[int, ...]) -> Outline:
        place = Cells(
            path=path,
            columns=tuple(chosen),
            names=tuple(columns.names[index] for index in chosen),
            num_columns=len(columns.names),
            has_header=columns.has_header,
            delimiter=data.delimiter,
        )
        return check_outline(Outline(key=key, name=show(path), shape=shape, dtype="<f8", place=place))

    shape_of_targets = (num_rows,) if len(targets) == 1 else (num_rows, len(targets))
    return Pair(outline(features, (num_rows, len(features))), outline(targets, shape_of_targets))


def read_lines(path: str, key: str) -> Iterator[Line]:
    """The lines that are not blank, one after another.

    Raises DataError: the file cannot be read, or a line is longer than 16 MiB.
    """
    file_bytes(path, key)
    try:
        with Path(path).open("rb") as stream:
            number = 0
            while line := stream.readline(LONGEST_LINE_BYTES + 1):
                number += 1
                if len(line) > LONGEST_LINE_BYTES:
                    raise DataError(key, f"{show(path)} has more than 16 MiB in line {number}; name a table of numbers")
                line = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                if not line.isspace():
                    yield Line(number, line.rstrip(b"\r\n").decode("utf-8", "replace"))
    except OSError as error:
        raise DataError(key, f"{show(path)} cannot be read: {error.strerror}; check the file") from None


def split_line(line: Line, delimiter: str, path: str, key: str) -> list[str]:
    """The cells of a line, quotes removed."""
    try:
        return [cell.strip() for cell in next(csv.reader([line.text], delimiter=delimiter))]
    except csv.Error as error:
        raise DataError(key, f"{show(path)}, line {line.number}: {show(error)}; name a table of numbers") from None


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, finite or not; Python's 1_000 is none."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _read_columns(first: Line, data: DataConfig, path: str, key: str) -> _Columns:
    cells = split_line(first, data.delimiter, path, key)
    has_header = not all(map(is_number, cells)) if data.header is None else data.header
    if len(cells) < 2:
        shown = repr(data.delimiter)
        raise DataError("data.delimiter", f"{shown} parts no columns in line {first.number} of {show(path)}; set it")
    return _Columns(cells if has_header else [str(index) for index in range(len(cells))], has_header)


def _find_column(name: str, columns: _Columns, path: str) -> int:
    """The index of a column; a name in the header comes before an index."""
    count = columns.names.count(name)
    if count > 1 and columns.has_header:
        raise DataError("data.target", f"{show(name)} names {count} columns of {show(path)}; give the column's index")
    if count == 1:
        return columns.names.index(name)
    digits = name.removeprefix("-")
    if (
        digits.isascii()
        and digits.isdecimal()
        and len(digits) < 10
        and -len(columns.names) <= int(name) < len(columns.names)
    ):
        return int(name) % len(columns.names)
    there = ", ".join(show(one) for one in columns.names[:8]) if columns.has_header else "no header"
    raise DataError(
        "data.target",
        f"{show(name)} is no column of {show(path)}, which has {len(columns.names)} columns ({there}); give one of "
        "their names or indices",
    )
