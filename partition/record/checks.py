"""What can be found out about a machine without torch: interpreter, cores, ports, disk, optional packages."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from partition.data.sources import SHIPPED
from partition.errors import RunError
from partition.units import format_bytes

Status = Literal["ok", "warn", "fail", "untried"]

LITTLE_DISK_BYTES = 2**30
LEAST_PYTHON = (3, 11)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    """`untried` where it could not be tried, which is neither good nor bad; `fail` where no run can work."""
    text: str
    """What was found and, unless it is well, what to do."""


def exit_code(checks: Sequence[Check]) -> int:
    """0 unless something failed, then that of a run that fails."""
    return RunError.exit_code if any(check.status == "fail" for check in checks) else 0


def check_host(runs: Path) -> list[Check]:
    """All that needs no torch; `runs` is where run directories go."""
    return [check_python(), check_cores(), check_port(), check_disk(runs), *map(check_source, SHIPPED)]


def check_python() -> Check:
    """The interpreter."""
    text = f"{platform.python_version()} at {sys.executable}"
    is_recent = sys.version_info >= LEAST_PYTHON
    return Check(
        name="python", status="ok" if is_recent else "fail", text=text if is_recent else f"{text}; 3.11 needed"
    )


def check_cores() -> Check:
    """The cores that this process may use beside the threads that it was told to use."""
    cores, all_cores = len(os.sched_getaffinity(0)), os.cpu_count()
    text = f"{cores} of {all_cores} usable"
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked is None:
        return Check(name="cores", status="ok", text=f"{text}, OMP_NUM_THREADS not set")
    if not asked.isdigit() or int(asked) > cores:
        return Check(
            name="cores", status="warn", text=f"{text}, OMP_NUM_THREADS is {asked}: threads will wait for each other"
        )
    return Check(name="cores", status="ok", text=f"{text}, OMP_NUM_THREADS is {asked}")


def check_port() -> Check:
    """A port that the kernel gives, as `--nproc` asks for one."""
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            port = listener.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return Check(name="port", status="ok", text=f"free ports on 127.0.0.1, {port} for one")
    except OSError as error:
        return Check(name="port", status="fail", text=f"127.0.0.1 takes no connection ({error}); is loopback up?")


def check_disk(runs: Path) -> Check:
    """Whether run directories can be written, and how much fits."""
    # The folder may not be there yet, and looking should not make it.
    place = next((path for path in (runs, *runs.absolute().parents) if path.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(bytes(4096))
            probe.flush()
            os.fsync(probe.fileno())
        free_bytes = shutil.disk_usage(place).free
    except OSError as error:
        advice = "choose another place with --out"
        return Check(name="disk", status="fail", text=f"{runs}: cannot be written ({error.strerror}); {advice}")
    text = f"{runs} can be written, {format_bytes(free_bytes)} free"
    is_little = free_bytes < LITTLE_DISK_BYTES
    return Check(
        name="disk", status="warn" if is_little else "ok", text=f"{text}; little for checkpoints" if is_little else text
    )


def check_source(source: str) -> Check:
    """Whether the package that ships a data set is here."""
    distribution = SHIPPED[source].distribution
    name = f"data {source}"
    try:
        return Check(name=name, status="ok", text=f"{distribution} {version(distribution)}")
    except PackageNotFoundError:
        text = f"{distribution} is not here; data.source {source} needs it: pip install {distribution}"
        return Check(name=name, status="warn", text=text)
