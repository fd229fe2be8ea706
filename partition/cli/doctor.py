"""`partition doctor`: whether this machine can run what is planned, and what could not be tried."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from partition.cli.options import Verbs, add_bare_verb, add_out, print_json
from partition.errors import PartitionError

if TYPE_CHECKING:
    from partition.record.checks import Check

_WORDS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "untried": "could not be tried"}


def add(verbs: Verbs) -> None:
    """The verb `doctor`."""
    text = "look at this machine: torch, devices, backends, cores, a free port, disk, data; exit code 4 if one fails"
    add_out(add_bare_verb(verbs, "doctor", run_doctor, text))


def run_doctor(options: argparse.Namespace) -> int:
    """Look at everything; 4 where something fails without which no run can work."""
    if options.overrides:
        raise PartitionError(f"doctor takes no {options.overrides[0]!r}; it looks at the machine, not at an experiment")
    return show_checks(options, _checks(options.out or Path("runs")))


def show_checks(options: argparse.Namespace, found: Iterable[Check]) -> int:
    """Each check as it is made, or all as JSON; 4 where one failed."""
    from partition.record.checks import exit_code

    checks = []
    for check in found:
        checks.append(check)
        if not options.json:
            print(f"{check.name:<16}{_WORDS[check.status]:<20}{check.text}", flush=True)
    code = exit_code(checks)
    if options.json:
        print_json({"schema_version": 1, "is_ready": code == 0, "checks": [asdict(check) for check in checks]})
    else:
        print("\nready" if code == 0 else "\nnot ready: see FAIL above")
    return code


def _checks(runs: Path) -> Iterator[Check]:
    # NumPy comes with it, which planning does without.
    from partition.record.checks import check_host

    yield from check_host(runs)
    yield from _check_torch()


def _check_torch() -> list[Check]:
    """What torch says; where it cannot even be imported, why."""
    try:
        import torch.distributed  # noqa: F401
    # A broken installation may raise anything.
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        text = f"cannot be imported ({type(error).__name__}: {first}); install it as pytorch.org says"
        from partition.record.checks import Check

        return [Check(name="torch", status="fail", text=text)]
    from partition.runtime.doctor import check_torch

    return check_torch()
