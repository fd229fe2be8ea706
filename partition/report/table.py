"""Plain tables: columns as wide as their content, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """A table as text; the columns of index `left` are aligned left, the others right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    aligned = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, aligned))
    return "\n".join([aligned[0], rule, *aligned[1:]])


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 rank`, `4 ranks`, `2 microbatches`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
