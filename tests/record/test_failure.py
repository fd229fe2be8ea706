"""What a rank leaves behind, as this project and as torch reads it."""

from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from partition.record.failure import FailureRecord, read_failure, write_failure

FAILURE = FailureRecord(
    rank=2, cause_rank=1, message="rank 1 died", exit_code=4, traceback=None, time_s=1_700_000_000.25
)


def test_a_record_is_read_back(tmp_path: Path) -> None:
    write_failure(tmp_path / "error.json", FAILURE)
    assert read_failure(tmp_path / "error.json") == FAILURE


def test_torchrun_shows_the_message_and_orders_by_time(tmp_path: Path) -> None:
    write_failure(tmp_path / "error.json", FAILURE)
    seen = ProcessFailure(local_rank=0, pid=1, exitcode=4, error_file=str(tmp_path / "error.json"))
    assert seen.timestamp == 1_700_000_000
    assert isinstance(seen.message, dict)
    assert seen.message["extraInfo"]["py_callstack"] == "rank 1 died"


def test_what_others_write_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "error.json"
    assert read_failure(path) is None
    for text in ("", "[]", '{"message": "killed"}', '{"message": {"message": "x", "extraInfo": {}}}'):
        path.write_text(text)
        assert read_failure(path) is None
