"""Files that are on the disk once these functions return, and a full disk said in plain words."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from partition.errors import RunError
from partition.record.checkpoint import FileRecord
from partition.units import format_bytes


class DiskError(RunError):
    """A checkpoint that could not be written; those from before are untouched."""


@contextmanager
def explaining(path: Path, wanted_bytes: int) -> Iterator[None]:
    """Turn a refusal of the operating system into a DiskError that says what was wanted and what is free."""
    try:
        yield
    except OSError as error:
        raise _disk_error(path, wanted_bytes, error.strerror or str(error)) from None


def check_room(path: Path, wanted_bytes: int) -> None:
    """Refuse before the first byte what the disk has no room for."""
    free = free_bytes(path)
    if free is not None and wanted_bytes > free:
        raise _disk_error(path, wanted_bytes, "too little space")


def free_bytes(path: Path) -> int | None:
    """Free bytes of the disk that a path lies or would lie on; None where the system does not say."""
    try:
        return shutil.disk_usage(next(one for one in (path, *path.absolute().parents) if one.exists())).free
    except OSError:
        return None


def _disk_error(path: Path, wanted_bytes: int, reason: str) -> DiskError:
    free = free_bytes(path)
    known = "" if free is None else f", {free} ({format_bytes(free)}) are free"
    return DiskError(
        f"{path}: cannot be written ({reason}): {wanted_bytes} bytes ({format_bytes(wanted_bytes)}) are wanted{known}; "
        "earlier checkpoints are untouched; make room, lower checkpoint.keep, or choose another place with --out"
    )


def write_file(path: Path, content: bytes) -> FileRecord:
    """Write a file anew and wait until it is on the disk. Raises OSError where it cannot be, also in part."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(content)
        while rest:  # a disk that fills up takes a part first, and refuses only the next write
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return FileRecord(name=path.name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def prepare_file(path: Path, content: bytes) -> Path:
    """Write what will take a file's place beside it, under the name returned. Raises OSError, and leaves nothing."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        write_file(temporary, content)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def put_in_place(prepared: Path, path: Path) -> None:
    """Let a prepared file take another's place: a reader sees one or the other. Raises OSError."""
    os.replace(prepared, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
