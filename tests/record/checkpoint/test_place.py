"""Which checkpoint is meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint import find, find_folder, list_checkpoints, read_latest
from partition.record.checkpoint.place import pointer_text, replaced_name, step_name
from tests.record.checkpoint.made import make_checkpoint, make_facts


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 5 and 10, the latter the latest."""
    run = tmp_path / "run"
    for step in (5, 10):
        make_checkpoint(run / "checkpoints", make_facts(step))
    (run / "checkpoints" / "latest").write_text(pointer_text(step_name(10)))
    return run


def test_latest_a_number_and_every_path_find_it(run: Path) -> None:
    folder = run / "checkpoints"
    assert [find(which, run).step for which in ("latest", "5", "10")] == [10, 5, 10]
    assert [find(str(path), Path("elsewhere")).step for path in (run, folder, folder / step_name(5))] == [10, 10, 5]


def test_a_copy_may_have_any_name(run: Path) -> None:
    os.rename(run / "checkpoints" / step_name(5), run / "best")
    assert find(str(run / "best"), run).step == 5


def test_a_name_alone_in_latest_will_do(run: Path) -> None:
    """Written by hand, to go back."""
    (run / "checkpoints" / "latest").write_text("step-00000005")
    assert find("latest", run).step == 5


def test_every_flipped_bit_in_latest_is_noticed(run: Path) -> None:
    """Some would name another step, and that may be there."""
    file = run / "checkpoints" / "latest"
    content = file.read_bytes()
    for bit in range(8 * (len(content) - 1)):  # the end of the line carries nothing
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="latest: is damaged: holds "):
            find("latest", run)


def test_latest_that_points_nowhere_names_the_others(run: Path) -> None:
    (run / "checkpoints" / "latest").write_text(pointer_text(step_name(15)))
    message = r"latest: names step-00000015, which is not there; there are step-00000005, step-00000010; name one"
    with pytest.raises(CheckpointError, match=message):
        find("latest", run)


def test_where_latest_is_not_there_yet_it_is_the_last_step(run: Path) -> None:
    """Killed between naming its first checkpoint and naming the latest; what has a name is complete."""
    (run / "checkpoints" / "latest").unlink()
    assert find("latest", run).step == 10


@pytest.mark.parametrize(
    "content", [b"", b"/etc", b"../step-00000005", b"step-5", b"step-00000005 00000000", b"\xff" * 9]
)
def test_anything_but_a_name_in_latest_is_damage(run: Path, content: bytes) -> None:
    (run / "checkpoints" / "latest").write_bytes(content)
    with pytest.raises(CheckpointError, match="latest: is damaged"):
        read_latest(run / "checkpoints")


def test_without_checkpoints_it_is_the_command_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match="there are no checkpoints") as caught:
        find("latest", tmp_path)
    assert caught.value.exit_code == 2


def test_steps_and_paths_that_are_not_there(run: Path) -> None:
    with pytest.raises(PartitionError, match="there is no step-00000007; there are step-00000005, step-00000010"):
        find("7", run)
    with pytest.raises(PartitionError, match="nowhere: there is no such checkpoint"):
        find("nowhere", run)


def test_a_checkpoint_without_description_is_damaged_not_absent(run: Path) -> None:
    path = run / "checkpoints" / step_name(10)
    (path / "checkpoint.json").unlink()
    for which in ("latest", "10", str(path)):
        with pytest.raises(CheckpointError, match=r"checkpoint\.json: there is no such file"):
            find(which, run)


def test_a_checkpoint_that_is_being_replaced_is_found_all_the_time(run: Path) -> None:
    folder = run / "checkpoints"
    os.rename(folder / step_name(10), folder / replaced_name(step_name(10)))
    assert find("latest", run).step == 10


def test_what_is_being_written_is_not_listed(run: Path) -> None:
    (run / "checkpoints" / ".step-00000015.part").mkdir()
    (run / "checkpoints" / "step-00000020").touch()
    (run / "checkpoints" / "notes").mkdir()
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == [step_name(5), step_name(10)]
    assert list_checkpoints(run / "nothing") == []


def test_steps_of_more_digits_come_last(tmp_path: Path) -> None:
    for step in (10**9, 99_999_999):
        make_checkpoint(tmp_path, make_facts(step))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-99999999", "step-1000000000"]


def test_a_run_called_checkpoints_has_its_own_folder(tmp_path: Path) -> None:
    run = tmp_path / "checkpoints"
    make_checkpoint(run / "checkpoints", make_facts())
    assert find_folder(run) == run / "checkpoints"
    assert find_folder(run / "checkpoints") == run / "checkpoints"
