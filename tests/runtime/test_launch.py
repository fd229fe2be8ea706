"""The answer of a run in several processes: the exit code of the one that failed by itself."""

from __future__ import annotations

import signal
from unittest.mock import Mock

import pytest

from partition.errors import RunError
from partition.runtime.launch import _exit_code


def ended(**codes: tuple[int, int]) -> Mock:
    """What the launcher raises: of each rank the exit code, and the second in which it ended."""
    failures = {
        int(rank.removeprefix("rank")): Mock(exitcode=code, timestamp=second, pid=100)
        for rank, (code, second) in codes.items()
    }
    first = min(failures.items(), key=lambda item: item[1].timestamp)
    return Mock(failures=failures, get_first_failure=lambda: first)


@pytest.mark.parametrize("by_launcher", [-signal.SIGTERM, 128 + signal.SIGTERM])
def test_a_rank_that_the_launcher_ended_in_the_same_second_does_not_answer(by_launcher: int) -> None:
    error = ended(rank0=(by_launcher, 7), rank1=(4, 7))
    assert _exit_code(error, is_told=True) == 4


def test_the_first_that_failed_by_itself_answers() -> None:
    assert _exit_code(ended(rank0=(2, 8), rank1=(4, 7)), is_told=True) == 4


@pytest.mark.parametrize("code", [-signal.SIGTERM, 128 + signal.SIGTERM])
def test_where_all_were_ended_that_is_the_answer(code: int) -> None:
    assert _exit_code(ended(rank0=(code, 7), rank1=(code, 7)), is_told=True) == 128 + signal.SIGTERM


def test_a_rank_that_was_killed_is_named() -> None:
    with pytest.raises(RunError, match="rank 1 was ended by SIGKILL"):
        _exit_code(ended(rank0=(4, 7), rank1=(-signal.SIGKILL, 7)), is_told=False)
