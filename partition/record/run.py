"""The run directory: one place for everything that a run leaves behind."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from partition.costs.noise import NoiseEstimate
from partition.errors import PartitionError

SCHEMA_VERSION = 1
_PACKAGES = ("partition-pipeline", "torch", "safetensors", "numpy", "pydantic", "PyYAML")
WARMUP_STEPS = 5
"""Steps left out of the median step time, where there are more."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One optimizer step."""

    step: int
    loss: float
    loss_hex: str
    """The loss without rounding."""
    objective: float
    """Loss and penalty."""
    penalty: float
    step_s: float
    samples_per_s: float
    grad_norm: float
    """Of the whole gradient, before it is clipped."""
    learning_rate: float
    tr_sigma: float | None = None
    """Of the gradients of the examples; None where noise is not measured, or not on a minibatch of full size."""
    grad_sq_norm: float | None = None
    """Unbiased, of the mean gradient without penalty; below 0 by chance."""
    b_noise: float | None = None
    """tr_sigma / grad_sq_norm over the last steps; None where that is not identifiable."""


_NOISE = {"tr_sigma", "grad_sq_norm", "b_noise"}
"""Keys of a step that a line of metrics.jsonl has where noise was measured."""


@dataclass(frozen=True, kw_only=True)
class Final:
    """Where training ended."""

    train_loss: float
    """Mean over the steps of the last epoch, or over all where there are fewer."""
    test_loss: float | None
    test_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class DeviceBytes:
    """Predicted beside measured peak of one device."""

    device: str
    predicted_peak_bytes: int
    measured_peak_bytes: int | None
    """None where nothing measures it."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Predicted step time beside the median of the run, and the clock that the latter was read from."""

    predicted_s: float
    measured_s: float
    clock: str
    """"wall", or "simulated": then it is the cost model's time, not a measurement."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run comes to."""

    schema_version: int
    candidate: str
    num_steps: int
    wall_s: float
    """Seconds of the whole training loop on the wall's clock."""
    final: Final
    per_device: tuple[DeviceBytes, ...]
    step_time: StepTime
    noise: NoiseEstimate | None = None
    """Of all its steps; None where noise was not measured."""
    num_steps_before: int = 0
    """Of its steps those that were done when it went on from a checkpoint of its own."""

    @property
    def has_trained(self) -> bool:
        """Whether it took a step since: one that was done already is only evaluated again."""
        return self.num_steps > self.num_steps_before


def median_step_s(step_s: Sequence[float]) -> float:
    """The median after the warm-up steps; of all steps where there are no more than those."""
    return statistics.median(step_s[WARMUP_STEPS:] or step_s)


def cut_metrics(text: str, last_step: int) -> str:
    """The lines of metrics.jsonl up to a step; what a killed process wrote half of is left out, and all after it."""
    kept = []
    for line in text.splitlines():
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        if not isinstance(step, int) or step > last_step:
            break
        kept.append(f"{line}\n")
    return "".join(kept)


class RunDirectory:
    """Writes the files of one run; an earlier run in the same place is continued or moved aside, never overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics: IO[str] | None = None

    def begin(
        self,
        *,
        config_text: str,
        plan: Mapping[str, object],
        command: Sequence[str],
        resumed_step: int | None = None,
    ) -> None:
        """Make the directory and write what is known before the first step.

        With `resumed_step` the run that is there goes on after that step: its metrics up to there stay, its command
        gets another line.

        Raises PartitionError where it cannot be written.
        """
        before = ""
        with self._refusing():
            if resumed_step is not None:
                before = self._read("command.txt")
                self._write("metrics.jsonl", cut_metrics(self._read("metrics.jsonl"), resumed_step))
            elif (self.path / "metrics.jsonl").exists():
                self._move_aside()
        self._write("config.yaml", config_text)
        self.write_json("plan.json", plan)
        self._write("command.txt", before + shlex.join(command) + "\n")
        self.write_json("environment.json", environment())
        with self._refusing():
            self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")

    def metrics(self, last_step: int) -> tuple[Metrics, ...]:
        """The steps that are recorded, up to one; those that another version wrote with other keys are left out."""
        with self._refusing():
            lines = cut_metrics(self._read("metrics.jsonl"), last_step).splitlines()
        keys = Metrics.__dataclass_fields__.keys()
        return tuple(Metrics(**line) for line in map(json.loads, lines) if line.keys() | _NOISE == keys)

    def _read(self, name: str) -> str:
        path = self.path / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PartitionError(
                f"{self.path}: cannot be written ({error.strerror}); choose another place with --out"
            ) from None

    def _move_aside(self) -> None:
        number = 1
        while (earlier := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(earlier)

    def append(self, metrics: Metrics) -> None:
        """One line of metrics.jsonl, on disk before the next step."""
        assert self._metrics is not None, "a run begins before its first step"
        with self._refusing():
            self._metrics.write(json.dumps(_line(metrics)) + "\n")
            self._metrics.flush()

    def end(self, summary: Summary) -> None:
        """Write summary.json and close the metrics."""
        self.write_json("summary.json", asdict(summary))
        self.close()

    def close(self) -> None:
        """Close the metrics, however the run ended."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def write_json(self, name: str, document: Mapping[str, object]) -> Path:
        """Write a document under a temporary name and rename it, so that a reader never sees half of it."""
        return self._write(name, json.dumps(document, indent=1) + "\n")

    def _write(self, name: str, text: str) -> Path:
        path = self.path / name
        temporary = path.with_suffix(path.suffix + ".part")
        with self._refusing():
            self.path.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        return path


def _line(metrics: Metrics) -> dict[str, Any]:
    """A line of metrics.jsonl: that of a step without noise has no keys for it."""
    line = asdict(metrics)
    return line if metrics.tr_sigma is not None else {key: line[key] for key in line if key not in _NOISE}


def environment() -> dict[str, Any]:
    """The machine and the versions that a result depends on."""
    return {
        "schema_version": SCHEMA_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
