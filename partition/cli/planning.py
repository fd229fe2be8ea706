"""`partition plan`: compare, explain, write the plan."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path

from partition.cli.options import Verbs, add_out, add_verb, load_plannable, print_json, run_path
from partition.config import ChainConfig, ExperimentConfig
from partition.errors import NothingFitsError, PartitionError
from partition.plan import Comparison, Search, compare_with
from partition.plan.break_even import is_quick
from partition.plan.compare import SCHEMA_VERSION
from partition.plan.explanation import explain, explanation_record
from partition.plan.plan_file import plan_record
from partition.record import RunDirectory
from partition.report import comparison_text


def add(verbs: Verbs) -> None:
    """The verb `plan`."""
    plan = add_verb(verbs, "plan", run_plan, "compare every way to train, choose one, write its plan")
    add_out(plan)
    plan.add_argument(
        "--break-even", action="store_true", help="also say at which links, memory and minibatch the verdict changes"
    )
    plan.add_argument(
        "--pytorch", action="store_true", help="print the choice as plain PyTorch lines, and nothing else"
    )
    plan.add_argument("--strategy", metavar="NAME", help="with --pytorch: the candidate of this name, not the choice")
    plan.add_argument("--all", action="store_true", help="price and show every candidate, not the best of each kind")
    plan.add_argument(
        "--check", type=Path, metavar="PLAN", help="verify a plan file again, by other means; exit 0 or 2"
    )


def run_plan(options: argparse.Namespace) -> int:
    """Compare, explain, write the plan."""
    _check_together(options)
    config = load_plannable(options, may_lack_data=True)
    search = Search(config)
    if options.check is not None:
        return _check_plan(options, search)
    comparison = compare_with(search, is_complete=options.all)
    if options.pytorch:
        return _print_pytorch(options, comparison)
    with_break_even = options.break_even or (options.json and is_quick(search))
    explanation = explain(search, comparison, with_break_even=with_break_even)
    if options.json:
        print_json(explanation_record(explanation))
    else:
        print(comparison_text(comparison, explanation, is_complete=options.all))
    if comparison.chosen is None:
        return NothingFitsError.exit_code
    directory = RunDirectory(run_path(options, config))
    record = plan_record(config, comparison.chosen, comparison.verdict, comparison.certificate)
    path = directory.write_json("plan.json", record)
    if not options.json:
        overrides = [*options.overrides, *options.set]
        verb = "simulate" if isinstance(config, ChainConfig) else "train"
        command = ["partition", verb, options.config, *overrides, "--plan", str(path)]
        print(f"\nPlan written to {path}. Next:\n  {shlex.join(command)}")
    return 0


def _check_together(options: argparse.Namespace) -> None:
    """Refuse options of which one would be passed over."""
    if options.strategy and not options.pytorch:
        raise PartitionError("--strategy names the candidate that --pytorch prints; give both, or neither")
    if options.check is not None and (options.pytorch or options.all or options.break_even):
        raise PartitionError("--check verifies a plan file and plans nothing; leave out --pytorch, --all, --break-even")
    if options.out is not None and (options.check is not None or options.pytorch):
        other = "--check" if options.check is not None else "--pytorch"
        raise PartitionError(f"--out says where the plan is written, and {other} writes none; give one of the two")
    if options.pytorch and options.break_even:
        raise PartitionError("--pytorch prints lines of Python and nothing else; leave out --break-even")


def _check_plan(options: argparse.Namespace, search: Search) -> int:
    """Verify a plan file, say what was looked at, and fail where a check did."""
    from partition.plan.verification import check_all, verify_plan  # for which no other plan should wait

    candidate, checks = verify_plan(options.check, search)
    if options.json:
        print_json(
            {"schema_version": SCHEMA_VERSION, "candidate": candidate.name, "checks": [asdict(of) for of in checks]}
        )
    else:
        print(f"{options.check}: {candidate.name}")
        print("\n".join(f"  {check.what:7} {'holds' if check.passed else 'FAILS'}: {check.found}" for check in checks))
    check_all(checks, options.check)
    return 0


def _print_pytorch(options: argparse.Namespace, comparison: Comparison) -> int:
    """The lines of a candidate for a training loop of one's own."""
    from partition.cli.candidates import named_candidate
    from partition.report.pytorch import pytorch_lines

    config = comparison.config
    if options.json:
        raise PartitionError("--pytorch prints lines of Python, --json a document; give one of the two")
    if not isinstance(config, ExperimentConfig):
        raise PartitionError("--pytorch: a table of costs does not say what its layers are; there is nothing to write")
    candidate = named_candidate(comparison, options.strategy) if options.strategy else comparison.chosen
    if candidate is None:
        raise NothingFitsError(comparison.verdict)
    print(pytorch_lines(config, candidate), end="")
    return 0
