"""`partition train`: train the candidate of a plan, of a name, or the chosen one."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from partition.cli.options import Verbs, add_out, add_verb, load_experiment, print_json, run_path
from partition.cli.progress import progress
from partition.cli.resuming import add_resume, find_resumption
from partition.config import dump_config
from partition.errors import NothingFitsError, PartitionError
from partition.plan import Candidate, Comparison, Search, compare_with
from partition.plan.plan_file import plan_record, read_plan
from partition.record import RunDirectory
from partition.record.checkpoint import FOLDER
from partition.report import run_text

if TYPE_CHECKING:
    from partition.record import Metrics


def add(verbs: Verbs) -> None:
    """The verb `train`."""
    train = add_verb(verbs, "train", run_train, "train the chosen plan, or another")
    add_out(train)
    train.add_argument("--plan", type=Path, metavar="FILE", help="a plan that `partition plan` wrote")
    train.add_argument("--strategy", metavar="NAME", help="a candidate by its name in the comparison")
    add_resume(train)
    train.add_argument("--force", action="store_true", help="run a candidate that is predicted not to fit")


def run_train(options: argparse.Namespace) -> int:
    """Train the candidate of a plan file, of a name, or the chosen one."""
    config = load_experiment(options)
    search = Search(config)
    candidate, verdict = _candidate(options, search)
    if not candidate.feasible and not options.force:
        raise NothingFitsError(f"{candidate.name}: {candidate.reason}; `partition plan` lists what fits, --force tries")
    from partition.data.dataset import load
    from partition.runtime import check_devices, num_steps, train
    from partition.runtime.checkpoint import Saver

    check_devices(search, candidate)
    dataset = load(config)
    directory = RunDirectory(run_path(options, config))
    resumption = find_resumption(options, config, candidate, directory.path, dataset.num_train)
    saver = Saver(directory.path / FOLDER, config, candidate, dataset.num_train, resumption=resumption)
    directory.begin(
        config_text=dump_config(config),
        plan=plan_record(config, candidate, verdict),
        command=["partition", *sys.argv[1:]],
        resumed_step=saver.continued_step,
    )
    total = num_steps(config, dataset.num_train, candidate.minibatch_size, saver.start)
    try:
        with progress(total, candidate, is_quiet=options.json) as show:

            def observe(metrics: Metrics) -> None:
                directory.append(metrics)
                show(metrics)

            summary = train(search, candidate, dataset, observe, saver=saver).summary
        directory.end(summary)
    finally:
        directory.close()
    if options.json:
        print_json(asdict(summary))
    else:
        print(f"\n{run_text(summary)}\n\nRun directory: {directory.path}")
    return 0


def _candidate(options: argparse.Namespace, search: Search) -> tuple[Candidate, str]:
    """The candidate to train and the verdict that it comes from."""
    if options.plan and options.strategy:
        raise PartitionError("--plan and --strategy both name what to train; give one of them")
    if options.plan:
        return read_plan(options.plan, search), ""
    comparison = compare_with(search)
    if options.strategy:
        return _by_name(comparison, options.strategy), comparison.verdict
    if comparison.chosen is None:
        raise NothingFitsError(comparison.verdict)
    return comparison.chosen, comparison.verdict


def _by_name(comparison: Comparison, name: str) -> Candidate:
    candidate = comparison.candidate(name)
    if candidate is None:
        names = ", ".join(one.name for one in comparison.candidates[:8])
        raise PartitionError(f"--strategy {name}: no such candidate; there are {names}, ... (`partition plan --all`)")
    if not candidate.stages:
        raise PartitionError(f"--strategy {name}: cannot be laid out: {candidate.reason}")
    return candidate
