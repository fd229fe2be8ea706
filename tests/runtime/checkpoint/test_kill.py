"""Killed at any moment of a save, the run can go on: from before it, or from after it.

One process imports torch and forks a child for every call of the operating system that a save makes; the child
kills itself at that call. What it leaves is then read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from partition.record.checkpoint import find, list_checkpoints, verify
from partition.runtime.checkpoint import CheckpointWriter, read_layer
from tests.record.checkpoint.made import make_facts

CALLS = sys.argv[2].split(",")

def save(folder, step, value, keep=2):
    writer = CheckpointWriter(folder, keep)
    layers = {index: {"weight": torch.full((50,), float(value))} for index in (0, 1)}
    writer.commit(make_facts(step), writer.write_layers(step, layers))

def kill_at(nth):
    count = 0
    def wrap(original):
        def call(*given, **options):
            nonlocal count
            count += 1
            if count == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **options)
        return call
    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))

def killed(folder, nth, step, value):
    child = os.fork()
    if child == 0:
        kill_at(nth)
        try:
            save(folder, step, value)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

def check(folder, allowed):
    if None in allowed and not list_checkpoints(folder):
        return None
    record = find("latest", folder.parent)
    verify(record)
    found = (record.step, float(read_layer(record, 1)["weight"][0]))
    assert found in allowed, (found, allowed)
    assert {float(read_layer(record, index)["weight"][0]) for index in (0, 1)} == {found[1]}
    for path in list_checkpoints(folder):
        verify(find(str(path), folder))
    return found

def scenario(root, step, value, before):
    seen, nth = [], 1
    while True:
        folder = root / f"{step}-{nth}" / "checkpoints"
        for earlier in before:
            save(folder, earlier, earlier)
        if not killed(folder, nth, step, value):
            check(folder, {(step, value)})
            return seen
        allowed = {(2, 2) if before else None, (step, value)}
        seen.append(check(folder, allowed))
        CheckpointWriter(folder, 2).clean()
        check(folder, allowed)
        save(folder, 4, 4)
        check(folder, {(4, 4)})
        assert not list(folder.glob(".*")), list(folder.glob(".*"))
        nth += 1

for step in map(int, sys.argv[3:]):
    before = [] if step == 1 else [1, 2]
    seen = scenario(Path(sys.argv[1]), step, 9, before)
    assert ((2, 2) if before else None) in seen and (step, 9) in seen, seen
    print(step, len(seen))
"""


FIRST, TAKEN, NEW = 1, 2, 3
"""The first checkpoint of a run; one whose name is that of the checkpoint that `latest` names; a new one."""


def run(root: Path, calls: str, *steps: int) -> list[int]:
    """How many calls a save of each of the steps made; every one has been the last of some process."""
    above = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(above), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(root), calls, *map(str, steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [int(line.split()[1]) for line in done.stdout.splitlines()]


def test_killed_at_every_rename_a_save_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    assert run(tmp_path, "rename,replace,rmdir", FIRST, TAKEN) == [2, 4]


@pytest.mark.slow
def test_killed_at_every_call_a_save_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    calls = "open,write,fsync,close,mkdir,rename,replace,unlink,rmdir"
    first, taken, new = run(tmp_path, calls, FIRST, TAKEN, NEW)
    assert first > 20
    assert new > 25
    assert taken > 25
