"""checkpoint.json: written once, and refused where a single byte of it has changed.

The text is canonical (the same content always gives the same bytes) and holds the SHA-256 of its own content, so that
damage shows wherever it strikes. Nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from partition.config.first_problem import first_problem
from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint.facts import CheckpointRecord, Facts, FileRecord

T = TypeVar("T")

SCHEMA_VERSION = 1
DOCUMENT = "checkpoint.json"
MOST_BYTES = 64 * 2**20
"""A description is far smaller; anything larger is none."""


def layer_file(index: int) -> str:
    """The name of a layer's file."""
    return f"layer-{index:05d}.safetensors"


def document_text(facts: Facts, files: Sequence[FileRecord]) -> str:
    """The text of checkpoint.json."""
    content = {"schema_version": SCHEMA_VERSION, **asdict(facts), "files": [asdict(file) for file in files]}
    return _dump({**content, "sha256": _digest(content)})


def _dump(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dump(content).encode()).hexdigest()


def read_document(path: Path) -> CheckpointRecord:
    """The description of the checkpoint in a directory.

    Raises CheckpointError where it is missing, damaged, or of another version.
    """
    file = path / DOCUMENT
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{file}: there is no such file, so {path} is no checkpoint; take another") from None
    except OSError as error:
        raise PartitionError(f"{file}: cannot be read ({error.strerror}); check the path and its permissions") from None
    document = _parse(file, content)
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"{file}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}")
    _check_content(file, document, content)
    return _record(path, file, document)


def _parse(file: Path, content: bytes) -> dict[str, Any]:
    if len(content) > MOST_BYTES:
        raise CheckpointError(f"{file}: is damaged: more than {MOST_BYTES} bytes; take another checkpoint")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or a number of thousands of digits
        raise CheckpointError(f"{file}: is damaged: no JSON; take another checkpoint") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{file}: is damaged: no JSON object; take another checkpoint")
    return document


def _check_content(file: Path, document: dict[str, Any], content: bytes) -> None:
    """Its own SHA-256, and the one spelling that such content has."""
    expected = document.pop("sha256", None)
    try:
        found = _digest(document)
        is_same_text = _dump({**document, "sha256": expected}).encode() == content
    except ValueError:  # NaN, or half of a surrogate pair
        raise CheckpointError(f"{file}: is damaged: no JSON that was written here; take another checkpoint") from None
    if expected != found:
        raise CheckpointError(
            f"{file}: is damaged: SHA-256 is {found}, expected {str(expected)[:64]!r}; take another checkpoint"
        )
    if not is_same_text:
        raise CheckpointError(f"{file}: is damaged: not the text that was written; take another checkpoint")


def _record(path: Path, file: Path, document: Mapping[str, Any]) -> CheckpointRecord:
    facts = _validated(file, TypeAdapter(Facts), document)
    files = _validated(file, TypeAdapter(tuple[FileRecord, ...]), document.get("files"), "files")
    for index, one in enumerate(files):
        if one.name != layer_file(index):  # and so no path that leads elsewhere
            raise CheckpointError(f"{file}: files.{index}.name is {one.name[:80]!r}, expected {layer_file(index)!r}")
    return CheckpointRecord(path=path, facts=facts, files=files)


def _validated(file: Path, adapter: TypeAdapter[T], part: object, within: str = "") -> T:
    try:
        return adapter.validate_json(json.dumps(part), strict=True)
    except ValidationError as error:
        raise CheckpointError(f"{file}: {first_problem(error, within)}; it was not written by this program") from None
