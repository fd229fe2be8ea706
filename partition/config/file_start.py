"""The start of a file that a person named: never waited for, never more than is looked at."""

from __future__ import annotations

import stat
from errno import EINVAL
from pathlib import Path


def read_start(path: str | Path, most_bytes: int) -> bytes:
    """The content of a file; of one that is longer one byte more than the most.

    Raises OSError where it cannot be read, or is a pipe or a terminal, which would be waited for without end.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except ValueError:
        raise OSError(EINVAL, "its name holds a null character") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(EINVAL, "it is not a regular file")
    with path.open("rb") as stream:
        return stream.read(most_bytes + 1)
