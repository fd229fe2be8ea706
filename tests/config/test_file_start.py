"""Files that a person named: their start, and never a wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from partition.config.file_start import read_start
from partition.costs import read_costs
from partition.costs.noise_file import read_noise
from partition.errors import PartitionError
from partition.plan.plan_file import planned_experiment


def test_one_byte_more_than_the_most_is_read(tmp_path: Path) -> None:
    """So that what is too long is seen to be."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    assert (read_start(path, 6), read_start(str(path), 3)) == (b"abcdef", b"abcd")


@pytest.mark.parametrize("read", [read_costs, read_noise, lambda path: planned_experiment(Path(path))])
def test_a_pipe_is_refused_and_not_waited_for(read: object, tmp_path: Path) -> None:
    """Nobody ever writes to this one."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert callable(read)
    for named, words in ((str(path), "it is not a regular file"), (f"{tmp_path}/a\0b", "holds a null character")):
        with pytest.raises(PartitionError, match=words):
            read(named)
