"""Where checkpoints lie, and which of them is meant.

<run>/checkpoints/step-00000050/    checkpoint.json, layer-00000.safetensors, ...
                  step-00000100/
                  latest            the name of the newest, replaced atomically
                  .step-00000150.part/    being written: never read, removed by the next save
                  .step-00000100.old/     while another of that name takes its place
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint.document import DOCUMENT, read_document
from partition.record.checkpoint.facts import CheckpointRecord

FOLDER = "checkpoints"
LATEST = "latest"
_NAME = re.compile(r"step-(\d{8,10})")
_POINTER = re.compile(r"(step-\d{8,10})(?: ([0-9a-f]{8}))?\n?")


def step_name(step: int) -> str:
    """The directory's name of the checkpoint after a step."""
    return f"step-{step:08d}"


def replaced_name(name: str) -> str:
    """What a checkpoint is called while another of its name is put in its place."""
    return f".{name}.old"


def pointer_text(name: str) -> str:
    """What `latest` holds: the name and its CRC-32, so that a changed digit is noticed."""
    return f"{name} {zlib.crc32(name.encode()):08x}\n"


def find_folder(place: Path) -> Path:
    """The folder of checkpoints, given itself or its run directory."""
    holds_checkpoints = (place / LATEST).is_file() or next(_steps(place), None) is not None
    return place if holds_checkpoints and not (place / FOLDER).is_dir() else place / FOLDER


def _steps(folder: Path) -> Iterator[Path]:
    """Its checkpoints, in no order."""
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())


def list_checkpoints(folder: Path) -> list[Path]:
    """The directories of all complete checkpoints, by step; whether they are sound has not been looked at."""
    return sorted(_steps(folder), key=lambda path: int(path.name.removeprefix("step-")))


def read_latest(folder: Path) -> str | None:
    """The name in `latest`; None where there is no such file.

    Raises CheckpointError where it holds anything but a name.
    """
    file = folder / LATEST
    try:
        content = file.read_bytes()[:1000]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PartitionError(f"{file}: cannot be read ({error.strerror}); check the path and its permissions") from None
    match = _POINTER.fullmatch(content.decode("utf-8", errors="replace"))
    if match is None or match.group(2) not in (None, pointer_text(match.group(1)).split()[1]):
        raise CheckpointError(f"{file}: is damaged: holds {content[:40]!r}, expected a name; {_others(folder)}")
    return match.group(1)


def find(which: str, run: Path) -> CheckpointRecord:
    """The checkpoint that a person means: `latest`, a number of steps, or a path.

    `latest` and a number are looked up in the run directory. A path may be that of a checkpoint, or of a run
    directory or its folder of checkpoints, and then means the latest there.

    Raises PartitionError where there is none, CheckpointError where it is damaged.
    """
    if which == LATEST:
        return _find_latest(run / FOLDER)
    if which.isascii() and which.isdigit() and len(which) <= 10:
        return _find_named(run / FOLDER, step_name(int(which)))
    path = Path(which)
    if not path.exists():
        raise PartitionError(f"{path}: there is no such checkpoint; give `latest`, a number of steps, or a path")
    if (path / DOCUMENT).is_file() or _NAME.fullmatch(path.name) or not path.is_dir():
        return read_document(path)
    return _find_latest(find_folder(path))


def _find_latest(folder: Path) -> CheckpointRecord:
    name = read_latest(folder)
    if name is not None:
        path = _directory(folder, name)
        if path is None:
            raise CheckpointError(f"{folder / LATEST}: names {name}, which is not there; {_others(folder)}")
        return read_document(path)
    for path in reversed(list_checkpoints(folder)):  # killed between naming its first one and naming the latest
        return read_document(path)
    raise PartitionError(f"{folder}: there are no checkpoints; `partition train` saves one at its end")


def _find_named(folder: Path, name: str) -> CheckpointRecord:
    path = _directory(folder, name)
    if path is None:
        raise PartitionError(f"{folder}: there is no {name}; {_others(folder)}")
    return read_document(path)


def _directory(folder: Path, name: str) -> Path | None:
    """A checkpoint's directory, also at the moment at which another of its name takes its place."""
    return next((path for path in (folder / name, folder / replaced_name(name)) if path.is_dir()), None)


def _others(folder: Path) -> str:
    names = [path.name for path in list_checkpoints(folder)]
    return f"there are {', '.join(names[-5:])}; name one of them" if names else "there are no checkpoints there"
