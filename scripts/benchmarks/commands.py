"""Runs commands of ours as a user does, in processes of their own, with one thread each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_verb(verb: str, path: Path, *arguments: str, num_processes: int = 1, rate: str | None = None) -> str:
    """The standard output of a verb with `--json`; with a rate on two hosts whose link has it, else on this one.

    Raises SystemExit with the end of its errors where it fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "partition", verb, str(path), *arguments, "--json"]
    if rate is not None:
        environment |= {"VERB": verb, "PYTHON": sys.executable}
        command = [str(ROOT / "scripts" / "two_hosts.sh"), "--rate", rate, str(path), *arguments, "--json"]
    elif num_processes > 1:
        command += ["--nproc", str(num_processes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


def train_candidate(path: Path, costs: Path, name: str, *, num_processes: int = 1, rate: str | None = None) -> Path:
    """Train a candidate under measured costs, on two hosts if it has several processes and there is a rate.

    The run's folder, a new one beside the experiment.
    """
    out = Path(tempfile.mkdtemp(dir=path.parent)) / name
    arguments = (f"planner.costs={costs}", "--strategy", name, "--out", str(out))
    run_verb("train", path, *arguments, num_processes=num_processes, rate=rate if num_processes > 1 else None)
    return out


def step_times(out: Path) -> dict[str, float]:
    """The predicted and the measured step of what was trained into a folder, and the error of the prediction."""
    step_time = json.loads((out / "summary.json").read_text(encoding="utf-8"))["step_time"]
    predicted_s, measured_s = float(step_time["predicted_s"]), float(step_time["measured_s"])
    return {"predicted_s": predicted_s, "measured_s": measured_s, "error": predicted_s / measured_s - 1}
