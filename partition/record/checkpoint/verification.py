"""Whether the files of a checkpoint are those that were written: sizes and SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint.facts import CheckpointRecord, FileRecord


def verify(record: CheckpointRecord) -> None:
    """Read every file and compare.

    Raises CheckpointError with everything that is damaged, one line for each file.
    """
    problems = list(find_damage(record))
    if problems:
        raise CheckpointError("\n".join(problems))


def find_damage(record: CheckpointRecord) -> Iterator[str]:
    """What is wrong with each file that is not as written: its path, expected and found."""
    for file in record.files:
        problem = describe_damage(record.path / file.name, file, *_measure(record.path / file.name))
        if problem:
            yield problem


def read_verified(record: CheckpointRecord, file: FileRecord) -> bytes:
    """The content of a file, exactly as it was written.

    Raises CheckpointError where it is damaged.
    """
    path = record.path / file.name
    content, num_bytes = b"", -1
    try:
        num_bytes = path.stat().st_size
        if num_bytes == file.num_bytes:  # else it is damaged already, and may be anything
            content = path.read_bytes()
            num_bytes = len(content)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise PartitionError(f"{path}: cannot be read ({error.strerror}); check the disk and permissions") from None
    problem = describe_damage(path, file, num_bytes, hashlib.sha256(content).hexdigest())
    if problem:
        raise CheckpointError(problem)
    return content


def describe_damage(path: Path, file: FileRecord, num_bytes: int, sha256: str) -> str | None:
    """What is wrong with a file of so many bytes (-1: missing) and this digest; None where nothing is."""
    if num_bytes < 0:
        return f"{path}: is damaged: missing, expected {file.num_bytes} bytes; take another checkpoint"
    if num_bytes != file.num_bytes:
        return f"{path}: is damaged: {num_bytes} bytes, expected {file.num_bytes}; take another checkpoint"
    if sha256 != file.sha256:
        return f"{path}: is damaged: SHA-256 is {sha256}, expected {file.sha256}; take another checkpoint"
    return None


def _measure(path: Path) -> tuple[int, str]:
    """Bytes and digest of a file; -1 bytes where it is not there."""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return stream.tell(), digest
    except FileNotFoundError:
        return -1, ""
    except OSError as error:
        raise PartitionError(f"{path}: cannot be read ({error.strerror}); check the disk and permissions") from None
