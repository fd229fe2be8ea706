"""An array ten times larger than the memory that a run may use.

A new process trains on a small array first, so that all of torch is there. Then the operating system is told to give
it no more than 200 MiB of memory of its own beyond that (RLIMIT_DATA counts every private writable page, where NumPy's
and torch's memory comes from), and it trains on an array of 2 GiB. That the limit holds is shown by reading the array
whole, which fails. The peak of resident memory, pages of files included, is held against the same 200 MiB: nothing is
mapped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.files import experiment_text, save

NUM_ROWS, WIDTH = 2**19, 1024
ALLOWED_BYTES = 200 * 2**20

PROGRAM = """\
import json, re, resource, sys
from pathlib import Path
import numpy as np
from partition.cli import main

def figure(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024

allowed = int(sys.argv[1])
assert main(["train", "small.yaml", "--out", "small", "--json"]) == 0
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = figure("VmHWM")
resource.setrlimit(resource.RLIMIT_DATA, (figure("VmData") + allowed,) * 2)
code = main(["train", "large.yaml", "--out", "large", "--json"])
grown = figure("VmHWM") - before
try:
    np.load("large_x.npy")
    fails = False
except MemoryError:
    fails = True
print(json.dumps({"code": code, "grown": grown, "reading_whole_fails": fails}))
"""


def write_array(path: Path) -> None:
    """2 GiB of float32, of which a thousand rows take space on the disk."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(NUM_ROWS, WIDTH))
    random = np.random.default_rng(0)
    for row in range(0, NUM_ROWS, 512):
        array[row] = random.standard_normal(WIDTH)
    array.flush()


@pytest.mark.slow
def test_an_array_ten_times_larger_than_the_memory_allowed(tmp_path: Path) -> None:
    write_array(tmp_path / "large_x.npy")
    classes = (np.arange(NUM_ROWS) % 512 == 0).astype(np.uint8)
    save(tmp_path / "large_y.npy", classes)
    save(tmp_path / "small_x.npy", np.ones((500, WIDTH), np.float32))
    save(tmp_path / "small_y.npy", classes[:500])
    assert (tmp_path / "large_x.npy").stat().st_size > 10 * ALLOWED_BYTES
    for name in ("small", "large"):
        data = {"source": "npy", "path": f"{name}_x.npy", "targets_path": f"{name}_y.npy", "test_fraction": 0.02}
        text = json.loads(experiment_text(data, in_features=WIDTH, hidden_features=[16], out_features=2))
        text["training"] = {"minibatch_size": 400, "steps": 40}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(text))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ALLOWED_BYTES)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0, done.stderr
    assert result["reading_whole_fails"]
    assert result["grown"] < ALLOWED_BYTES
    lines = (tmp_path / "large" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 40
    assert json.loads((tmp_path / "large" / "summary.json").read_text())["final"]["test_loss"] > 0
