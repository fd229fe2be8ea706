"""Damage is found before a tensor is used, and told with what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint import CheckpointRecord, find_damage, read_verified, verify
from tests.record.checkpoint.made import make_checkpoint, make_facts


@pytest.fixture
def record(tmp_path: Path) -> CheckpointRecord:
    return make_checkpoint(tmp_path, make_facts())


def test_what_is_sound_passes(record: CheckpointRecord) -> None:
    verify(record)
    assert [read_verified(record, file) for file in record.files] == [b"first", b"second"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"secone", "SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (b"secon", "5 bytes, expected 6"),
        (b"seconds", "7 bytes, expected 6"),
        (b"", "0 bytes, expected 6"),
        (None, "missing, expected 6 bytes"),
    ],
)
def test_a_file_that_is_not_as_written(record: CheckpointRecord, content: bytes | None, message: str) -> None:
    path = record.path / "layer-00001.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    for attempt in (lambda: verify(record), lambda: read_verified(record, record.files[1])):
        with pytest.raises(CheckpointError, match=f"layer-00001.safetensors: is damaged: {message}") as caught:
            attempt()
        assert caught.value.exit_code == 5
    assert read_verified(record, record.files[0]) == b"first"


def test_everything_that_is_damaged_is_told_at_once(record: CheckpointRecord) -> None:
    for file in record.files:
        (record.path / file.name).write_bytes(b"")
    assert len(list(find_damage(record))) == 2


def test_what_cannot_be_read_is_not_called_damaged(record: CheckpointRecord) -> None:
    path = record.path / "layer-00000.safetensors"
    path.unlink()
    path.mkdir()
    with pytest.raises(PartitionError, match=r"cannot be read \(Is a directory\)") as caught:
        verify(record)
    assert caught.value.exit_code == 2
