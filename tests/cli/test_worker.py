"""A rank says why it failed where the launcher looks, and only one of several prints."""

from pathlib import Path

import pytest

from partition.cli import worker
from partition.errors import PartitionError, PeerError
from partition.record.failure import read_failure


@pytest.fixture(autouse=True)
def _rank_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)


def test_a_rank_is_known_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker.is_worker()
    assert not worker.speaks()
    monkeypatch.setenv("RANK", "0")
    assert worker.speaks()
    monkeypatch.delenv("RANK")
    assert not worker.is_worker()
    assert worker.speaks()


def test_under_a_launcher_the_record_is_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert worker.report(PartitionError("x is 3, the limit is 2")) == 2
    record = read_failure(tmp_path / "error.json")
    assert record is not None
    assert (record.rank, record.cause_rank, record.exit_code, record.traceback) == (1, 1, 2, None)
    assert record.message == "rank 1 failed: x is 3, the limit is 2"
    assert capsys.readouterr() == ("", "")


def test_an_error_that_nobody_foresaw_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(KeyError) as caught:
        {}["key"]  # type: ignore[index]
    assert worker.report(caught.value) == 4
    record = read_failure(tmp_path / "error.json")
    assert record is not None
    assert record.message == "rank 1 failed: KeyError: 'key'"
    assert "test_worker.py" in (record.traceback or "")


@pytest.mark.parametrize("is_told_here", [True, False])
def test_without_a_launcher_one_prints(is_told_here: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.report(PeerError("rank 0 died", rank=0, is_told_here=is_told_here)) == 4
    assert capsys.readouterr().err == ("partition: rank 0 died\n" if is_told_here else "")
