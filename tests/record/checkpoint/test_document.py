"""checkpoint.json: read back as it was written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint import FileRecord, document_text, layer_file, read_document
from tests.record.checkpoint.made import make_checkpoint, make_facts


def rewrite(path: Path, **changes: Any) -> None:
    """Change the document as a program would that knows how its digest is made."""
    facts = make_facts()
    document = json.loads(document_text(facts, [FileRecord(name=layer_file(0), num_bytes=1, sha256="0")]))
    document.update(changes)
    document.pop("sha256")
    from partition.record.checkpoint.document import _digest, _dump

    (path / "checkpoint.json").write_text(_dump({**document, "sha256": _digest(document)}))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    facts = make_facts(7)
    record = make_checkpoint(tmp_path, facts)
    assert record.facts == facts
    assert [file.name for file in record.files] == ["layer-00000.safetensors", "layer-00001.safetensors"]
    assert (record.step, record.num_bytes, record.path) == (7, 11, tmp_path / "step-00000007")


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """The digest covers the content; that it is spelled in one way only covers white space and the like."""
    file = make_checkpoint(tmp_path, make_facts()).path / "checkpoint.json"
    content = file.read_bytes()
    for index in range(len(content)):
        file.write_bytes(content[:index] + bytes([content[index] ^ (1 << index % 8)]) + content[index + 1 :])
        with pytest.raises(CheckpointError, match=r"checkpoint\.json: "):
            read_document(file.parent)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b'{"a": NaN}', b"null"]
)
def test_garbage_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_document(tmp_path)
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith(f"{tmp_path / 'checkpoint.json'}: ")
    assert "\n" not in str(caught.value)


def test_a_description_too_long_to_be_one_is_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partition.record.checkpoint.document.MOST_BYTES", 100)
    make_facts()
    with pytest.raises(CheckpointError, match="more than 100 bytes"):
        make_checkpoint(tmp_path, make_facts())


def test_a_directory_without_description_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: there is no such file"):
        read_document(tmp_path)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").mkdir()
    with pytest.raises(PartitionError, match=r"cannot be read \(Is a directory\)"):
        read_document(tmp_path)


def test_another_version_is_refused_by_its_number(tmp_path: Path) -> None:
    rewrite(tmp_path, schema_version=2)
    with pytest.raises(CheckpointError, match="schema_version is 2, this version reads 1"):
        read_document(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../../secret", "/etc/passwd", "layer-00001.safetensors", "layer-00000.safetensors\n", "layer-0.safetensors"],
)
def test_files_elsewhere_or_out_of_order_are_refused(tmp_path: Path, name: str) -> None:
    rewrite(tmp_path, files=[{"name": name, "num_bytes": 1, "sha256": "0"}])
    with pytest.raises(CheckpointError, match=r"files\.0\.name is "):
        read_document(tmp_path)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"position": 3}, "position"),
        ({"num_train": "64"}, "num_train"),
        ({"files": {}}, "files"),
        ({"files": [1]}, r"files\.0"),
    ],
)
def test_values_of_another_type_are_named(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    rewrite(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=rf"checkpoint\.json: {where}: "):
        read_document(tmp_path)


def test_the_same_content_has_the_same_text() -> None:
    files = [FileRecord(name=layer_file(0), num_bytes=1, sha256="0")]
    assert document_text(make_facts(), files) == document_text(make_facts(), files)
    assert document_text(make_facts(), files) != document_text(make_facts(11), files)
