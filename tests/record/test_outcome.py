"""Who failed first and truly, from what the processes of a run leave behind."""

from partition.record.failure import FailureRecord
from partition.record.outcome import End, describe_end, explain


def say(rank: int, cause: int, code: int, time_s: float, message: str) -> FailureRecord:
    trace = "Traceback ...\n" if rank == cause and code == 4 else None
    return FailureRecord(rank=rank, cause_rank=cause, message=message, exit_code=code, traceback=trace, time_s=time_s)


def end(rank: int, code: int, record: FailureRecord | None = None, time_s: float = 10.0) -> End:
    return End(rank=rank, code=code, time_s=time_s, record=record)


def test_the_rank_that_told_of_its_own_failure() -> None:
    own = say(1, 1, 4, 3.0, "rank 1 failed: nan")
    survivor = say(0, 1, 4, 2.9, "rank 1 failed: nan (heard)")
    outcome = explain([end(0, 4, survivor), end(1, 4, own), end(2, -15)])
    assert (outcome.exit_code, outcome.message, outcome.traceback) == (4, own.message, own.traceback)


def test_a_killed_rank_is_named_although_only_survivors_speak() -> None:
    outcome = explain([end(0, 4, say(0, 1, 4, 3.0, "rank 1 died at step 3")), end(1, -9), end(2, -15)])
    assert outcome.message == "rank 1 died at step 3; rank 1 was ended by SIGKILL"
    assert outcome.exit_code == 4


def test_a_killed_rank_is_named_where_nobody_speaks() -> None:
    outcome = explain([end(0, -15), end(1, -9, time_s=11.0), end(2, -15)])
    assert (outcome.exit_code, outcome.message) == (4, "rank 1 was ended by SIGKILL")


def test_one_that_the_launcher_ended_is_never_to_blame_beside_another() -> None:
    # Ranks 0 and 2 were asked to end because rank 1 crashed, and rank 0 said so before anything else was known.
    asked = say(0, 0, 143, 1.0, "rank 0 failed: ended by SIGTERM without saving, in set-up")
    outcome = explain([end(0, 143, asked), end(1, 1, time_s=12.0), end(2, -15)])
    assert (outcome.exit_code, outcome.message) == (4, "rank 1 ended with exit code 1")


def test_ended_after_saving() -> None:
    outcome = explain([end(0, 143), end(1, 143), end(2, -15)])
    assert (outcome.exit_code, outcome.message) == (143, None)


def test_bad_input_keeps_its_exit_code() -> None:
    outcome = explain([end(0, 2, say(0, 0, 2, 1.0, "rank 0 failed: no such file")), end(1, -15)])
    assert (outcome.exit_code, outcome.message) == (2, "rank 0 failed: no such file")


def test_ends_in_words() -> None:
    assert describe_end(7) == "ended with exit code 7"
    assert describe_end(-11) == "was ended by SIGSEGV"
    assert describe_end(-99) == "was ended by signal 99"
