"""A schedule as a JSON document, and schedules read from files of either form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from partition.errors import PartitionError, ScheduleError
from partition.schedule.actions import Schedule
from partition.schedule.text import from_text, to_text

SCHEMA_VERSION = 1
MOST_BYTES = 64 * 2**20
"""Of a file that is read."""


def to_document(schedule: Schedule, *, lowered: bool = False) -> dict[str, object]:
    """The schedule in plain values for JSON: its rows hold what the text form holds."""
    rows = to_text(schedule, lowered).splitlines()
    return {
        "name": schedule.name,
        "num_ranks": schedule.num_ranks,
        "num_stages": schedule.num_stages,
        "num_microbatches": schedule.num_microbatches,
        "placement": list(schedule.placement),
        "is_forward_only": schedule.is_forward_only,
        "rows": [row.split(",") for row in rows],
    }


def read_schedule(path: Path, *, is_forward_only: bool = False) -> Schedule:
    """The schedule of a file in text form, or of a JSON document that holds one under `schedule`.

    Raises PartitionError for what cannot be read and ScheduleError, with rank and cell, for what is no schedule.
    """
    text = _read_text(path)
    if text.lstrip().startswith("{"):
        return _from_document(path, text)
    return _named(path, text, is_forward_only)


def _named(path: Path, text: str, is_forward_only: bool) -> Schedule:
    name = path.stem if path.stem.isprintable() else "file"
    try:
        return from_text(text, name=name, is_forward_only=is_forward_only)
    except ScheduleError as error:
        raise ScheduleError(
            f"{_shown(path)}: {error}", rank=error.rank, position=error.position, action=error.action
        ) from None


def _from_document(path: Path, text: str) -> Schedule:
    try:
        document = json.loads(text)
        schedule = document.get("schedule")
        rows, is_forward_only = _rows_of(schedule), schedule.get("is_forward_only")
        is_document = document.get("schema_version") == SCHEMA_VERSION and isinstance(is_forward_only, bool)
    except (ValueError, RecursionError, AttributeError):  # no JSON, or something else than an object in some place
        is_document = False
    if not is_document:
        raise ScheduleError(
            f"{_shown(path)}: is JSON but holds no schedule; write one with `partition schedule --format json`"
        )
    made = _named(path, rows, is_forward_only)
    name = schedule.get("name")
    is_name = isinstance(name, str) and name.isprintable() and 0 < len(name) <= 100
    return replace(made, name=name) if is_name else made


def _rows_of(schedule: Mapping[str, Any]) -> str:
    """The rows as text; raises ValueError for what is not a list of lists of actions."""
    rows = schedule.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError("rows")
    if not all(isinstance(cell, str) and not set(cell) & set(",\r\n") for row in rows for cell in row):
        raise ValueError("cells")
    return "\n".join(",".join(row) for row in rows)


def _read_text(path: Path) -> str:
    shown = _shown(path)
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "there is no such file"
            raise PartitionError(f"{shown}: {what}; write one with `partition schedule NAME ... --format csv`")
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, PartitionError):
            raise
        reason = getattr(error, "strerror", None) or "the path holds a null character"
        raise PartitionError(f"{shown}: cannot be read ({reason}); check the path") from None
    if len(content) > MOST_BYTES:
        raise PartitionError(f"{shown}: is larger than {MOST_BYTES} bytes; no schedule that is read is that large")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ScheduleError(f"{shown}: is not text in UTF-8; save it as UTF-8, one row a rank") from None


def _shown(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else ascii(text)
