"""`partition doctor` and `partition selftest`: what this machine has, and whether the whole path works on it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from partition.cli.options import Verbs, add_bare_verb, print_json
from partition.errors import PartitionError, RunError
from partition.record.checks import Check, Standing, is_well
from partition.report.checks import checks_text

SCHEMA_VERSION = 1


def add(verbs: Verbs) -> None:
    """The verbs `doctor` and `selftest`."""
    doctor = add_bare_verb(verbs, "doctor", run_doctor, "look at torch, devices, backends, ports and the disk")
    doctor.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs would go")
    selftest = add_bare_verb(
        verbs, "selftest", run_selftest, "links, bits, bytes, seconds and a killed process, on this machine's devices"
    )
    selftest.add_argument("--nproc", type=int, default=2, metavar="N", help="how many processes, one a device (2)")
    selftest.add_argument("--kind", choices=("cpu", "cuda"), default="cpu", help="what the devices are (cpu)")


def run_doctor(options: argparse.Namespace) -> int:
    """Every check, and 4 where one failed."""
    try:
        from partition.runtime.doctor import examine
    except (ImportError, OSError) as error:
        failed = Check(name="torch", standing=Standing.FAIL, detail=f"cannot be imported: {error}; install it again")
        return _show(options, [failed])
    return _show(options, examine(options.out))


def run_selftest(options: argparse.Namespace) -> int:
    """The whole path, and 4 where a part failed."""
    if not 2 <= options.nproc <= 64:
        raise PartitionError(f"--nproc {options.nproc}: take from 2 to 64 processes, one for each device")
    from partition.runtime.selftest import has_devices, selftest

    lacking = has_devices(options.nproc, options.kind)
    if lacking:
        raise RunError(lacking)
    return _show(options, selftest(options.nproc, options.kind))


def _show(options: argparse.Namespace, found: Iterable[Check]) -> int:
    checks = list(found)
    if options.json:
        print_json({"schema_version": SCHEMA_VERSION, "checks": [asdict(check) for check in checks]})
    else:
        print(checks_text(checks))
    return 0 if is_well(checks) else RunError.exit_code
