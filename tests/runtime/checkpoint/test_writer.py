"""Checkpoints of several ranks, named once complete; a disk that fills up harms none that was there."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from partition.errors import RunError
from partition.record.checkpoint import FileRecord, find, layer_file, list_checkpoints, read_document, verify
from partition.runtime.checkpoint import CheckpointWriter, read_layer
from partition.runtime.checkpoint.files import DiskError
from partition.runtime.checkpoint.writer import in_layer_order
from tests.record.checkpoint.made import make_facts


def layer(value: float, size: int = 100) -> dict[str, Tensor]:
    return {"weight": torch.full((size,), float(value)), "weight.step": torch.tensor(float(value))}


def save(folder: Path, step: int, keep: int | None = 3) -> Path:
    """Two layers that hold the step's number; given up where that fails, as a run does."""
    writer = CheckpointWriter(folder, keep)
    try:
        return writer.commit(make_facts(step), writer.write_layers(step, {0: layer(step), 1: layer(-step)}))
    except DiskError:
        writer.abandon(step)
        raise


def check_intact(folder: Path, step: int) -> None:
    """`latest` names this step, which is as it was written, and nothing half done lies about."""
    record = find("latest", folder.parent)
    assert record.step == step
    verify(record)
    assert float(read_layer(record, 1)["weight"][0]) == -step
    assert not list(folder.glob(".*"))


def test_ranks_write_their_layers_and_one_commits(folder: Path) -> None:
    """In any order; nothing has a name before."""
    ranks = [CheckpointWriter(folder, 3) for _ in range(3)]
    files = ranks[2].write_layers(5, {3: layer(3)})
    files += ranks[0].write_layers(5, {0: layer(0), 1: layer(1)})
    assert list_checkpoints(folder) == []
    files += ranks[1].write_layers(5, {2: layer(2)})
    record = read_document(ranks[0].commit(make_facts(5), files))
    verify(record)
    assert [float(read_layer(record, index)["weight"][0]) for index in range(4)] == [0, 1, 2, 3]
    assert find("latest", folder.parent) == record


def test_a_view_is_saved_as_the_numbers_it_shows(folder: Path) -> None:
    writer = CheckpointWriter(folder, 1)
    matrix = torch.arange(6.0).reshape(2, 3).requires_grad_(True)
    record = read_document(writer.commit(make_facts(1), writer.write_layers(1, {0: {"weight": matrix.T}})))
    assert torch.equal(read_layer(record, 0)["weight"], matrix.T)


def test_files_are_listed_by_layer_however_many_digits() -> None:
    """As text, layer 100000 would come before layer 99999."""
    numbers = list(range(99_998, 100_001))
    assert sorted(map(layer_file, numbers)) != list(map(layer_file, numbers))
    files = [FileRecord(name=layer_file(index), num_bytes=0, sha256="") for index in reversed(numbers)]
    assert [file.name for file in in_layer_order(files)] == list(map(layer_file, numbers))


def test_a_file_of_another_rank_that_is_not_to_be_seen(folder: Path) -> None:
    """Two hosts, each with a disk of its own."""
    here, elsewhere = CheckpointWriter(folder, 3), CheckpointWriter(folder.parent / "elsewhere", 3)
    files = here.write_layers(1, {0: layer(0)}) + elsewhere.write_layers(1, {1: layer(1)})
    with pytest.raises(RunError, match=r"layer-00001\.safetensors: is missing .* must be on a file system that all"):
        here.commit(make_facts(1), files)
    assert list(folder.iterdir()) == []


def test_what_a_killed_save_of_the_same_step_left_is_not_taken_along(folder: Path) -> None:
    writer = CheckpointWriter(folder, 3)
    writer.write_layers(1, {0: layer(7), 1: layer(7), 2: layer(7)})
    path = save(folder, 1)
    assert sorted(file.name for file in path.iterdir()) == [
        "checkpoint.json",
        "layer-00000.safetensors",
        "layer-00001.safetensors",
    ]
    check_intact(folder, 1)


def test_cleaning_up_brings_back_what_was_being_replaced(folder: Path) -> None:
    save(folder, 1)
    os.rename(folder / "step-00000001", folder / ".step-00000001.old")
    CheckpointWriter(folder, 3).clean()
    check_intact(folder, 1)


def test_keep_none_removes_nothing(folder: Path) -> None:
    for step in range(1, 6):
        save(folder, step, keep=None)
    assert len(list_checkpoints(folder)) == 5


def test_keep_1_holds_the_new_one_alone(folder: Path) -> None:
    for step in (1, 2):
        save(folder, step, keep=1)
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000002"]
    check_intact(folder, 2)


# A disk that is full: refused beforehand, at the n-th write, in the midst of one, and for real.


@pytest.mark.parametrize("failing", ["write", "fsync", "mkdir", "rename", "replace"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_whatever_the_disk_refuses_the_earlier_checkpoint_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str, nth: int
) -> None:
    save(folder, 1)
    original, count = getattr(os, failing), 0

    def refuse(*given: object, **options: object) -> object:
        nonlocal count
        count += 1
        if count >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, refuse)
        error = None
        try:
            save(folder, 2)
        except DiskError as caught:
            error = caught
    if count < nth:  # a save calls it less often
        assert error is None
        return
    assert error is not None
    assert "No space left on device" in str(error)
    record = find("latest", folder.parent)
    verify(record)
    assert record.step in (1, 2)
    assert list(folder.glob(".step*/*")) == []
    save(folder, 3)
    check_intact(folder, 3)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """No file grows beyond this: the system takes what fits and refuses the rest, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_is_cut_short_by_the_system(folder: Path) -> None:
    save(folder, 1)
    with largest_file(300), pytest.raises(DiskError, match="File too large") as caught:
        save(folder, 2)
    assert str(folder / ".step-00000002.part") in str(caught.value)
    assert list(folder.glob(".step*/*")) == []
    save(folder, 3)
    check_intact(folder, 3)


def test_a_disk_without_room_is_told_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, 1)
    usage = shutil.disk_usage(folder)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    message = r"step-00000002\.part: cannot be written \(too little space\): 8\d\d\d bytes .* wanted, 5000 .* free"
    writer = CheckpointWriter(folder, 3)
    with pytest.raises(DiskError, match=message):
        writer.write_layers(2, {0: layer(2, 500), 1: layer(2, 500)})
    check_intact(folder, 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 256 KiB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("is_told_beforehand", [True, False])
def test_a_disk_that_is_full_in_truth(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, is_told_beforehand: bool
) -> None:
    """Where another program takes the room in the meantime, the system says so in the midst of a write."""
    folder = small_disk / "checkpoints"
    writer = CheckpointWriter(folder, 3)
    writer.commit(make_facts(1), writer.write_layers(1, {0: layer(1, 20_000), 1: layer(-1, 20_000)}))
    if not is_told_beforehand:
        monkeypatch.setattr("partition.runtime.checkpoint.writer.check_room", lambda *_: None)
    reason = "too little space" if is_told_beforehand else "No space left on device"
    with pytest.raises(DiskError, match=rf"{reason}\): 16\d{{4}} bytes .* are wanted, \d+ \(.*\) are free"):
        writer.write_layers(2, {0: layer(2, 20_000), 1: layer(-2, 20_000)})
    assert list(folder.glob(".step*/*")) == []
    writer.clean()
    check_intact(folder, 1)


@pytest.mark.parametrize("free_pages", range(1, 12))
def test_wherever_a_disk_becomes_full_the_last_complete_checkpoint_is_the_latest(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, free_pages: int
) -> None:
    """A save takes five pages of 4 KiB or so: with each more, the next one gets further before there is no room."""
    monkeypatch.setattr("partition.runtime.checkpoint.writer.check_room", lambda *_: None)
    folder = small_disk / "checkpoints"
    save(folder, 1, keep=None)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "fill").write_bytes(bytes(free - 4096 * free_pages))
    steps: list[int] = []
    with pytest.raises(DiskError, match="No space left on device"):
        steps.extend(int(save(folder, step, keep=None).name[-8:]) for step in range(2, 100))
    check_intact(folder, max([1, *steps]))
