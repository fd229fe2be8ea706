"""The numbers of a table of text, some of its columns, in portions of lines; what is none is told by its place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from partition.data.outline import Cells, Outline
from partition.data.refusal import DataError, show
from partition.data.table import Line, is_number, read_lines, split_line

_PORTION_CELLS = 2**17


def read_cells(outline: Outline, place: Cells) -> NDArray[np.float64]:
    """The columns of an outline, (N, I), read from their file.

    Raises DataError with line and column: a cell that is empty, no number or not finite, a line of another length.
    """
    values_NI = np.empty((outline.num_rows, outline.width))
    lines = read_lines(place.path, outline.key)
    if place.has_header:
        next(lines, None)
    done = 0
    for portion in _portions(lines, max(1, _PORTION_CELLS // place.num_columns)):
        rows = _parse(portion, outline, place)
        if done + len(rows) > outline.num_rows:
            raise outline.refuse("has grown since its lines were counted; start again")
        values_NI[done : done + len(rows)] = rows
        done += len(rows)
    if done < outline.num_rows:
        raise outline.refuse("has shrunk since its lines were counted; start again")
    return values_NI


def _portions(lines: Iterator[Line], size: int) -> Iterator[list[Line]]:
    while portion := list(islice(lines, size)):
        yield portion


def _parse(lines: list[Line], outline: Outline, place: Cells) -> NDArray[np.float64]:
    """By NumPy's reader of text; where it fails, cell by cell for the message."""
    try:
        table = np.loadtxt(
            [line.text for line in lines],
            delimiter=place.delimiter,
            comments=None,
            quotechar='"',
            ndmin=2,
        )
    except ValueError:
        table = np.array([_parse_line(line, outline, place) for line in lines])
    if table.shape != (len(lines), place.num_columns) or not np.isfinite(table[:, place.columns]).all():
        table = np.array([_parse_line(line, outline, place) for line in lines])
    chosen: NDArray[np.float64] = table[:, place.columns]
    return chosen


def _parse_line(line: Line, outline: Outline, place: Cells) -> list[float]:
    cells = split_line(line, place.delimiter, place.path, outline.key)
    if len(cells) != place.num_columns:
        raise _refusal(line, outline, f"has {len(cells)} cells, the first line has {place.num_columns}")
    values = [math.nan] * len(cells)
    for column, name in zip(place.columns, place.names, strict=True):
        values[column] = _parse_cell(cells[column], f"column {show(name)}", line, outline)
    return values


def _parse_cell(cell: str, where: str, line: Line, outline: Outline) -> float:
    if not cell:
        raise _refusal(line, outline, f"{where} is empty; fill it or remove the line")
    if not is_number(cell):
        advice = "write a number (classes are counted from 0)"
        raise _refusal(line, outline, f"{where} holds {show(repr(cell))}, which is no number; {advice}")
    if not math.isfinite(float(cell)):
        raise _refusal(line, outline, f"{where} holds {show(cell)}, which is not finite; remove the line")
    return float(cell)


def _refusal(line: Line, outline: Outline, message: str) -> DataError:
    return DataError(outline.key, f"{outline.name}, line {line.number}: {message}")
