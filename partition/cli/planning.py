"""`partition plan`: compare, explain, write the plan."""

from __future__ import annotations

import argparse
import shlex

from partition.cli.options import Verbs, add_out, add_verb, load_plannable, print_json, run_path
from partition.config import ChainConfig
from partition.errors import NothingFitsError
from partition.plan import compare, comparison_record
from partition.plan.plan_file import plan_record
from partition.record import RunDirectory
from partition.report import comparison_text


def add(verbs: Verbs) -> None:
    """The verb `plan`."""
    plan = add_verb(verbs, "plan", run_plan, "compare every way to train, choose one, write its plan")
    add_out(plan)
    plan.add_argument("--all", action="store_true", help="show every candidate, not the best of each kind")


def run_plan(options: argparse.Namespace) -> int:
    """Compare, explain, write the plan."""
    config = load_plannable(options, may_lack_data=True)
    comparison = compare(config)
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
