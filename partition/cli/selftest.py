"""`partition selftest`: whether the whole path works on this machine's devices."""

from __future__ import annotations

import argparse

from partition.cli.doctor import show_checks
from partition.cli.options import Verbs, add_bare_verb
from partition.errors import PartitionError, RunError


def add(verbs: Verbs) -> None:
    """The verb `selftest`."""
    selftest = add_bare_verb(
        verbs, "selftest", run_selftest, "links, bits, bytes, seconds and a killed process, on this machine's devices"
    )
    selftest.add_argument("--nproc", type=int, default=2, metavar="N", help="how many processes, one a device (2)")
    selftest.add_argument("--kind", choices=("cpu", "cuda"), default="cpu", help="what the devices are (cpu)")


def run_selftest(options: argparse.Namespace) -> int:
    """The whole path, and 4 where a part failed."""
    if options.overrides:
        raise PartitionError(f"selftest takes no {options.overrides[0]!r}; it has an experiment of its own")
    if not 2 <= options.nproc <= 64:
        raise PartitionError(f"--nproc {options.nproc}: take from 2 to 64 processes, one for each device")
    from partition.runtime.selftest import has_devices, selftest

    lacking = has_devices(options.nproc, options.kind)
    if lacking:
        raise RunError(lacking)
    return show_checks(options, selftest(options.nproc, options.kind))
