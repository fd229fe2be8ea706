"""Refusals of data: the key that is about them, and one line of what, the value, the limit and the remedy."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from partition.errors import PartitionError


class DataError(PartitionError):
    """Data that cannot be used; `key` is the dotted path of what to change."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        self.message = message
        super().__init__(f"{key}: {message}")


class AbsentDataError(DataError):
    """A file of the user's that is not there."""


def show(text: object) -> str:
    """A name or a value from a file, for a message: on one line, and not longer than a person reads."""
    shown = str(text)
    shown = shown if shown.isprintable() else ascii(shown)
    return shown if len(shown) <= 200 else f"{shown[:97]}...{shown[-100:]}"


def file_bytes(path: str, key: str) -> int:
    """The size of a regular file.

    Raises DataError where there is none, AbsentDataError where there is nothing at all.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise AbsentDataError(key, f"there is no {show(path)}; put it there or correct the path") from None
    except OSError as error:
        raise DataError(key, f"{show(path)} cannot be read: {error.strerror}; check the path") from None
    except ValueError:
        raise DataError(key, f"{show(path)} holds a null character; check the path") from None
    # A pipe or a terminal is not opened: it would be waited for without end.
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise DataError(key, f"{show(path)} is {kind}; name a file")
    if not os.access(path, os.R_OK):
        raise DataError(key, f"{show(path)} may not be read by this user; check its permissions")
    return status.st_size


def read_start(path: str, key: str, count: int) -> bytes:
    """At most the first `count` bytes of a regular file."""
    file_bytes(path, key)
    try:
        with Path(path).open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise DataError(key, f"{show(path)} cannot be read: {error.strerror}; check the file") from None
