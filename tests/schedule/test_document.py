"""Schedules as JSON and in files: what is written is read, and what is none is refused in a line."""

import json
import os
from pathlib import Path

import pytest

from partition.errors import PartitionError, ScheduleError
from partition.schedule import GENERATORS, generate, to_text
from partition.schedule.document import MOST_BYTES, read_schedule, to_document


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize("lowered", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_document_holds_the_schedule(name: str, lowered: bool, tmp_path: Path) -> None:
    schedule = generate(name, num_ranks=3, num_microbatches=5)
    document = {"schema_version": 1, "schedule": to_document(schedule, lowered=lowered)}
    read = read_schedule(written(tmp_path / "any.json", json.dumps(document)))
    assert (read.name, read.is_forward_only, read.placement) == (name, schedule.is_forward_only, schedule.placement)
    assert to_text(read, lowered) == to_text(schedule, lowered)


def test_text_takes_its_name_from_the_file(tmp_path: Path) -> None:
    assert read_schedule(written(tmp_path / "mine.csv", "0F0,0B0\n")).name == "mine"


@pytest.mark.parametrize("text", ["\ufeff0F0,0B0\n", "0F0,0B0\r\n", "0F0,0B0\r", "0F0,0B0", " 0F0 , 0B0 ,,\n\n\n"])
def test_marks_and_line_ends_of_other_systems_are_read(text: str, tmp_path: Path) -> None:
    assert to_text(read_schedule(written(tmp_path / "mine.csv", text))) == "0F0,0B0\n"


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{",
        "{" * 100_000,
        '{"schema_version": 1}',
        '{"schema_version": 1, "schedule": null}',
        '{"schema_version": 1, "schedule": []}',
        '{"schema_version": 1, "schedule": {"rows": [["0F0", "0B0"]]}}',
        '{"schema_version": 2, "schedule": {"rows": [["0F0", "0B0"]], "is_forward_only": false}}',
        '{"schema_version": 1, "schedule": {"rows": [[1]], "is_forward_only": false}}',
        '{"schema_version": 1, "schedule": {"rows": "0F0", "is_forward_only": false}}',
        '{"schema_version": 1, "schedule": {"rows": [["0F0,0B0"]], "is_forward_only": false}}',
        '{"schema_version": 1, "schedule": {"rows": [["0F0\\n1F0"]], "is_forward_only": false}}',
    ],
)
def test_json_that_holds_no_schedule_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"mine\.json: is JSON but holds no schedule"):
        read_schedule(written(tmp_path / "mine.json", text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe0F0", "is not text in UTF-8"),
        (bytes(range(256)), "is not text in UTF-8"),
        (b"", "holds no action"),
        (b"," * 100_000, "holds no action"),
        ("0F0,\uff12F0".encode(), "rank 0, cell 2: '\uff12F0' is not an action"),
        (b"0F0,2BW0", "cell 2: '2BW0' is the older dialect"),
        (b'"0F0","0B0"', "cell 1: '\"0F0\"' is not an action"),
        (b"0F0,0" + b"X" * 10_000, "has kind X{40}\\.\\.\\."),
        ("0F0,0B0\u20281F0,1B0".encode(), "cell 2: '0B0\\\\u20281F0' is not an action"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_file(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=message) as caught:
        read_schedule(written(tmp_path / "mine.csv", content))
    assert "mine.csv" in str(caught.value)


def test_the_place_of_a_wrong_cell_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError) as caught:
        read_schedule(written(tmp_path / "mine.csv", "0F0,0B0\n1F0,oh\n"))
    assert (caught.value.rank, caught.value.position, caught.value.action) == (1, 1, "oh")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "none.csv", "there is no such file"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "a\nb", "'.*\\\\nb': there is no such file"),
        (Path("x" * 5000), "(there is no such file|cannot be read)"),
        (Path("a\0b"), "(there is no such file|null character)"),
    ):
        with pytest.raises(PartitionError, match=message):
            read_schedule(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(PartitionError, match="is larger than"):
        read_schedule(path)
