"""`partition plan`: compare, explain, write the plan."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path

from partition.cli.options import Verbs, add_out, add_verb, load_plannable, print_json, run_path
from partition.config import AnyConfig, ChainConfig
from partition.errors import NothingFitsError
from partition.plan import Search, compare, comparison_record
from partition.plan.compare import SCHEMA_VERSION
from partition.plan.plan_file import plan_record
from partition.plan.verification import check_all, verify_plan
from partition.record import RunDirectory
from partition.report import comparison_text


def add(verbs: Verbs) -> None:
    """The verb `plan`."""
    plan = add_verb(verbs, "plan", run_plan, "compare every way to train, choose one, write its plan")
    add_out(plan)
    plan.add_argument("--all", action="store_true", help="price and show every candidate, not the best of each kind")
    plan.add_argument(
        "--check", type=Path, metavar="PLAN", help="verify a plan file again, by other means; exit 0 or 2"
    )


def run_plan(options: argparse.Namespace) -> int:
    """Compare, explain, write the plan."""
    config = load_plannable(options, may_lack_data=True)
    if options.check is not None:
        return _check_plan(options, config)
    comparison = compare(config, is_complete=options.all)
    if options.json:
        print_json(comparison_record(comparison))
    else:
        print(comparison_text(comparison, is_complete=options.all))
    if comparison.chosen is None:
        return NothingFitsError.exit_code
    directory = RunDirectory(run_path(options, config))
    path = directory.write_json("plan.json", plan_record(config, comparison.chosen, comparison.verdict))
    if not options.json:
        overrides = [*options.overrides, *options.set]
        verb = "simulate" if isinstance(config, ChainConfig) else "train"
        command = ["partition", verb, options.config, *overrides, "--plan", str(path)]
        print(f"\nPlan written to {path}. Next:\n  {shlex.join(command)}")
    return 0


def _check_plan(options: argparse.Namespace, config: AnyConfig) -> int:
    """Verify a plan file, say what was looked at, and fail where a check did."""
    candidate, checks = verify_plan(options.check, Search(config))
    if options.json:
        print_json(
            {"schema_version": SCHEMA_VERSION, "candidate": candidate.name, "checks": [asdict(of) for of in checks]}
        )
    else:
        print(f"{options.check}: {candidate.name}")
        print("\n".join(f"  {check.what:7} {'holds' if check.passed else 'FAILS'}: {check.found}" for check in checks))
    check_all(checks, options.check)
    return 0
