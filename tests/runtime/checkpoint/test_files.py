"""Files that are on the disk, and disks that are full."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from partition.runtime.checkpoint.files import (
    DiskError,
    check_room,
    explaining,
    free_bytes,
    prepare_file,
    put_in_place,
    write_file,
)


def test_a_file_is_written_whole_with_its_digest(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    record = write_file(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == content
    assert (record.name, record.num_bytes, record.sha256) == ("a", 100_000, hashlib.sha256(content).hexdigest())
    assert write_file(tmp_path / "a", b"").num_bytes == 0
    assert (tmp_path / "a").read_bytes() == b""


def test_what_the_disk_takes_in_parts_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:7]))
    write_file(tmp_path / "a", bytes(range(100)))
    assert (tmp_path / "a").read_bytes() == bytes(range(100))


def test_it_is_synced_before_it_is_closed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("write", "fsync", "close", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, _o=original, _n=name: (calls.append(_n), _o(*given))[1])
    put_in_place(prepare_file(tmp_path / "a", b"x"), tmp_path / "a")
    assert calls == ["write", "fsync", "close", "replace", "fsync", "close"]


def test_the_other_file_stays_where_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"before")

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        prepare_file(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_refusal_says_what_was_wanted_and_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1024))
    place = tmp_path / "not" / "there"
    message = (
        rf"^{place}: cannot be written \(No space left on device\): 2048 bytes \(2\.0 KiB\) are wanted, "
        r"1024 \(1\.0 KiB\) are free; earlier checkpoints are untouched; make room"
    )
    with pytest.raises(DiskError, match=message) as caught, explaining(place, 2048):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.exit_code == 4


def test_room_is_looked_for_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1024))
    check_room(tmp_path, 1024)
    with pytest.raises(DiskError, match=r"too little space\): 1025 bytes .* are wanted, 1024 .* are free"):
        check_room(tmp_path, 1025)


def test_free_bytes_are_those_of_the_nearest_directory_that_is_there(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") is not None
