"""The whole path on the user's own devices in a minute or two: links, bits, bytes, seconds, and a process that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from partition.record.checks import Check, Status
from partition.units import format_bytes, format_seconds

WIDTH, DEPTH_PER_STAGE, MINIBATCH, MICROBATCHES, STEPS = 512, 3, 256, 8, 12
OK: Status = "ok"
FAIL: Status = "fail"
UNTRIED: Status = "untried"
LIMIT_S = 100.0
"""Of one run; a healthy one takes seconds."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run in processes of its own."""

    code: int
    output: str
    folder: Path

    @property
    def losses(self) -> list[str]:
        """Of every step, without rounding."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["loss_hex"] for line in lines]

    @property
    def summary(self) -> dict[str, Any]:
        """What it came to."""
        document: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return document

    @property
    def weights(self) -> list[str]:
        """The SHA-256 of every layer of its last checkpoint."""
        (folder,) = (self.folder / "checkpoints").glob("step-*")
        return [file["sha256"] for file in json.loads((folder / "checkpoint.json").read_text())["files"]]


def selftest(num_processes: int, kind: str) -> Iterator[Check]:
    """Check after check; what one needs and another did not bring is said to be untried."""
    with tempfile.TemporaryDirectory(prefix="partition-selftest-") as folder:
        path = Path(folder)
        (path / "selftest.yaml").write_text(json.dumps(experiment(num_processes, kind)), encoding="utf-8")
        yield _links(path, num_processes, kind)
        alone = _train(path, "alone", f"accumulate-{MICROBATCHES}", 1)
        split = _train(path, "split", f"pipeline-{num_processes}x{MICROBATCHES}-1f1b", num_processes)
        yield from _compare(alone, split, num_processes)
        yield _kill(path, num_processes)


def experiment(num_processes: int, kind: str) -> dict[str, Any]:
    """A small network with a stage for every process."""
    device: dict[str, Any] = {"kind": kind, "count": num_processes, "memory": "1 GiB"}
    if kind == "cuda":
        device |= {"compute": "10 TFLOP/s", "memory_bandwidth": "1000 GB/s"}
    hidden = {"width": WIDTH, "depth": num_processes * DEPTH_PER_STAGE - 1}
    return {
        "model": {"in_features": WIDTH, "hidden_features": hidden, "out_features": 10, "activation": "gelu"},
        "data": {"source": "synthetic"},
        "training": {"minibatch_size": MINIBATCH, "steps": STEPS, "timeout": "30 s"},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "cluster": {"devices": device},
        "planner": {"strategies": ["accumulate", "pipeline"], "num_microbatches": MICROBATCHES, "schedules": "1f1b"},
    }


def _command(folder: Path, name: str, strategy: str, num_processes: int, *overrides: str) -> list[str]:
    command = [sys.executable, "-P", "-m", "partition", "train", str(folder / "selftest.yaml"), *overrides]
    command += ["--strategy", strategy, "--out", str(folder / name)]
    return command + (["--nproc", str(num_processes)] if num_processes > 1 else [])


def _environment() -> dict[str, str]:
    # One thread for each process: another number of them gives other bits.
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _train(folder: Path, name: str, strategy: str, num_processes: int) -> _Run:
    command = _command(folder, name, strategy, num_processes)
    try:
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return _Run(code=-1, output=f"it was not done after {LIMIT_S:g} s", folder=folder / name)
    return _Run(code=done.returncode, output=(done.stderr or done.stdout).strip(), folder=folder / name)


def _compare(alone: _Run, split: _Run, num_processes: int) -> Iterator[Check]:
    names = ("bits", "memory", "step")
    for run, what in ((alone, "one process"), (split, f"{num_processes} processes")):
        if run.code != 0:
            last = run.output.splitlines()[-1] if run.output else f"exit code {run.code}"
            yield Check(name="training", status=FAIL, text=f"{what} did not train: {last}")
            yield from (Check(name=name, status=UNTRIED, text="training failed") for name in names)
            return
    is_same = alone.losses == split.losses and alone.weights == split.weights
    what = f"losses of {STEPS} steps, weights and optimizer state of 1 process and of {num_processes}"
    yield Check(
        name="bits",
        status=OK if is_same else FAIL,
        text=f"the same {what}" if is_same else f"{what} differ",
    )
    yield _bytes(split)
    yield _seconds(split)


def _bytes(run: _Run) -> Check:
    devices = run.summary["per_device"]
    apart = max(abs(device["measured_peak_bytes"] - device["predicted_peak_bytes"]) for device in devices)
    most = format_bytes(max(device["measured_peak_bytes"] for device in devices))
    status: Status = OK if apart == 0 else FAIL
    return Check(name="memory", status=status, text=f"peaks of at most {most}, {apart} bytes from the predicted")


def _seconds(run: _Run) -> Check:
    """Never a failure: rates that nobody measured are not expected to be right."""
    step = run.summary["step_time"]
    measured, predicted = format_seconds(step["measured_s"]), format_seconds(step["predicted_s"])
    detail = f"{measured} measured, {predicted} predicted from assumed rates (no profile of this machine)"
    return Check(name="step", status=OK, text=detail)


def _kill(folder: Path, num_processes: int) -> Check:
    """One rank is killed in the midst of training: the others end soon, and it is named."""
    strategy = f"pipeline-{num_processes}x{MICROBATCHES}-1f1b"
    command = _command(folder, "killed", strategy, num_processes, "training.steps=100000")
    run = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        victim = _wait_for_rank(run, folder / "killed", num_processes - 1)
        if victim is None:
            return Check(name="killed process", status=UNTRIED, text="the run to be killed did not start")
        os.kill(victim, signal.SIGKILL)
        began_s = time.monotonic()
        _, error = run.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        return Check(name="killed process", status=FAIL, text="the other processes went on for 30 s")
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait()
    took_s = time.monotonic() - began_s
    is_named = f"rank {num_processes - 1}" in error and run.returncode == 4
    detail = f"the others ended after {format_seconds(took_s)}, exit code {run.returncode}, " + (
        "the dead one named" if is_named else f"and said: {error.strip()[-200:]}"
    )
    status: Status = OK if is_named and took_s < 10 else FAIL
    return Check(name="killed process", status=status, text=detail)


def _wait_for_rank(run: subprocess.Popen[str], folder: Path, rank: int) -> int | None:
    """The process of a rank once it trains; None where the run ends or does not come so far."""
    end_s = time.monotonic() + LIMIT_S
    metrics = folder / "metrics.jsonl"
    while time.monotonic() < end_s and run.poll() is None:
        if metrics.exists() and metrics.stat().st_size:
            return next((pid for pid in _children(run.pid) if _rank_of(pid) == str(rank)), None)
        time.sleep(0.05)
    return None


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def _rank_of(pid: int) -> str:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((entry[5:].decode() for entry in entries if entry.startswith(b"RANK=")), "")


# Links, measured in processes of their own


def _links(folder: Path, num_processes: int, kind: str) -> Check:
    out = folder / "links.json"
    command = ["-P", "-m", "partition.runtime.links", str(out), kind]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num_processes)]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--no-python", sys.executable]
    try:
        done = subprocess.run(
            [*launcher, *command], env=_environment(), capture_output=True, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return Check(name="links", status=FAIL, text=f"not measured within {LIMIT_S:g} s")
    if done.returncode != 0 or not out.exists():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Check(name="links", status=FAIL, text=f"could not be measured: {last[:200]}")
    return Check(name="links", status=OK, text=_describe(json.loads(out.read_text(encoding="utf-8"))))


def _describe(found: dict[str, Any]) -> str:
    curves = [link["curve"] for link in found["links"]]
    latency_s = max(curve["seconds"][0] for curve in curves)
    # Links that are slow have been measured up to smaller messages than others.
    num_bytes, slowest_s = max(
        ((curve["sizes"][-1], curve["seconds"][-1]) for curve in curves), key=lambda one: one[1] / one[0]
    )
    rate = format_bytes(int(num_bytes / slowest_s))
    smallest = curves[0]["sizes"][0]
    return (
        f"by {found['way']}: {format_seconds(latency_s)} for {smallest} bytes, {rate}/s at {format_bytes(num_bytes)}, "
        "the slowest pair"
    )


def has_devices(num_processes: int, kind: str) -> str:
    """What is lacking for so many processes; nothing where it is all there."""
    if kind == "cuda" and torch.cuda.device_count() < num_processes:
        there = torch.cuda.device_count()
        return f"{num_processes} CUDA devices are needed, torch sees {there}; give a smaller --nproc, or --kind cpu"
    return ""
