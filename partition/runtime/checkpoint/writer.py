"""Writing a checkpoint: into a fresh directory, made durable, and only then given its name.

    every rank    .step-00000100.part/layer-00003.safetensors     written, fsync
    then rank 0   .step-00000100.part/checkpoint.json             with the size and SHA-256 of every file, fsync
                  .step-00000100.part -> step-00000100            rename, fsync of the parent
                  .latest.part -> latest                          rename, fsync of the parent
                  the oldest                                      removed

Killed at any moment, this leaves `latest` naming a complete checkpoint.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from torch import Tensor

from partition.record.checkpoint import (
    DOCUMENT,
    Facts,
    FileRecord,
    document_text,
    layer_file,
    list_checkpoints,
)
from partition.record.checkpoint.place import LATEST, pointer_text, replaced_name, step_name
from partition.runtime.checkpoint.files import (
    DiskError,
    check_room,
    explaining,
    prepare_file,
    put_in_place,
    sync_directory,
    write_file,
)

HEADER_BYTES = 2048
"""More than a layer's file needs besides its tensors."""


class CheckpointWriter:
    """Writes the checkpoints of one folder; the ranks of a run share it.

    Each rank calls `write_layers` for the layers that it holds; once all have, one of them calls `commit`.
    `keep` is how many stay there, None for all.
    """

    def __init__(self, directory: Path, keep: int | None) -> None:
        self.directory = directory
        self.keep = keep

    def clean(self) -> None:
        """Remove what saves left behind that were cut short. One rank calls it, before any begins to write."""
        if not self.directory.is_dir():
            return
        with explaining(self.directory, 0):
            for path in self.directory.glob(".step-*.old"):
                name = path.name[1 : -len(".old")]
                if not (self.directory / name).exists():
                    os.rename(path, self.directory / name)
            for path in [*self.directory.glob(".step-*.part"), *self.directory.glob(".step-*.old")]:
                shutil.rmtree(path)
            (self.directory / LATEST).with_name(f".{LATEST}.part").unlink(missing_ok=True)

    def write_layers(self, step: int, layers: Mapping[int, Mapping[str, Tensor]]) -> list[FileRecord]:
        """Write the given layers, one at a time on the host; their tensors may be on any device.

        Raises DiskError, with this call's files removed, where there is no room.
        """
        part = self._part(step)
        wanted = sum(_num_bytes(tensors) for tensors in layers.values())
        check_room(part, wanted)
        try:
            with explaining(part, wanted):
                part.mkdir(parents=True, exist_ok=True)
                return [write_file(part / layer_file(index), serialise(tensors)) for index, tensors in layers.items()]
        except DiskError:
            _remove(part / layer_file(index) for index in layers)
            raise

    def commit(self, facts: Facts, files: Sequence[FileRecord]) -> Path:
        """Complete a checkpoint whose layers all ranks have written, name it, let `latest` name it, remove the oldest.

        Raises DiskError where it cannot be written, or a file of another rank is not to be seen.
        """
        in_order = in_layer_order(files)
        part, name = self._part(facts.position.step), step_name(facts.position.step)
        content = document_text(facts, in_order).encode()
        try:
            with explaining(part, len(content)):
                _check_complete(part, in_order)
                write_file(part / DOCUMENT, content)
                sync_directory(part)
                # Before the new one has its name, so that a disk that is full by then is full in time.
                pointer = prepare_file(self.directory / LATEST, pointer_text(name).encode())
                self._name(part, name)
                put_in_place(pointer, self.directory / LATEST)
                self._prune(name)
        except DiskError:
            self.abandon(facts.position.step)
            raise
        return self.directory / name

    def abandon(self, step: int) -> None:
        """Remove what ranks have written of a checkpoint that cannot be completed."""
        shutil.rmtree(self._part(step), ignore_errors=True)

    def _name(self, part: Path, name: str) -> None:
        """Give it its name; another that has it already, from before the run went back, makes way."""
        replaced = self.directory / replaced_name(name)
        if (self.directory / name).exists():
            os.rename(self.directory / name, replaced)
        os.rename(part, self.directory / name)
        sync_directory(self.directory)
        if replaced.exists():
            shutil.rmtree(replaced)

    def point_latest(self, name: str) -> None:
        """Let `latest` name a checkpoint that is complete."""
        content = pointer_text(name).encode()
        with explaining(self.directory / LATEST, len(content)):
            put_in_place(prepare_file(self.directory / LATEST, content), self.directory / LATEST)

    def _prune(self, latest: str) -> None:
        """Remove the oldest, in the order in which they were written: after going back, later steps are older."""
        if self.keep is None:
            return
        others = [path for path in list_checkpoints(self.directory) if path.name != latest]
        by_age = sorted(others, key=lambda path: path.stat().st_mtime_ns)
        for path in by_age[: max(0, len(by_age) - (self.keep - 1))]:
            # Renamed first, so that one that is half removed never looks complete.
            doomed = self.directory / f".{path.name}.part"
            os.rename(path, doomed)
            shutil.rmtree(doomed)

    def _part(self, step: int) -> Path:
        return self.directory / f".{step_name(step)}.part"


def in_layer_order(files: Iterable[FileRecord]) -> list[FileRecord]:
    """By the number in their names, which may have five digits or more."""
    return sorted(files, key=lambda file: (len(file.name), file.name))


def serialise(tensors: Mapping[str, Tensor]) -> bytes:
    """The tensors as the content of a safetensors file."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _num_bytes(tensors: Mapping[str, Tensor]) -> int:
    return HEADER_BYTES + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _remove(paths: Iterable[Path]) -> None:
    """Free the room that a save took which came to nothing; what cannot be removed is left to the next one."""
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _check_complete(part: Path, files: Sequence[FileRecord]) -> None:
    """Every rank's files are here, and nothing else that a save of before has left."""
    names = [layer_file(index) for index in range(len(files))]
    assert [file.name for file in files] == names, "every layer is written by one rank"
    for path in part.iterdir():
        if path.name not in names:
            path.unlink()
    for file in files:
        path = part / file.name
        found = path.stat().st_size if path.exists() else None
        if found != file.num_bytes:
            raise DiskError(
                f"{path}: {'is missing' if found is None else f'has {found} bytes'} where rank 0 looks, "
                f"{file.num_bytes} bytes were written; --out must be on a file system that all ranks share"
            )
