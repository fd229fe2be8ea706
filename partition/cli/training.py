"""`partition train`: train the candidate of a plan, of a name, or the chosen one."""

from __future__ import annotations

import argparse
import signal
from contextlib import closing, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from partition.cli.candidates import named_candidate
from partition.cli.options import Verbs, add_out, add_verb, load_experiment, print_json, run_path
from partition.cli.processes import add_nproc, is_rank, launch_ranks, tell, tell_of_signal
from partition.cli.progress import progress
from partition.cli.resuming import add_resume, find_resumption
from partition.config import dump_config
from partition.costs import NoiseEstimate
from partition.costs.noise_file import noise_of_run
from partition.errors import NothingFitsError, PartitionError
from partition.plan import Candidate, Search, compare_with
from partition.plan.plan_file import plan_record, read_plan
from partition.record import RunDirectory
from partition.record.checkpoint import FOLDER
from partition.report import run_text

if TYPE_CHECKING:
    from partition.record import Metrics
    from partition.runtime import Result
    from partition.runtime.liveness import Watch


def add(verbs: Verbs) -> None:
    """The verb `train`."""
    train = add_verb(verbs, "train", run_train, "train the chosen plan, or another")
    add_out(train)
    train.add_argument("--plan", type=Path, metavar="FILE", help="a plan that `partition plan` wrote")
    train.add_argument("--strategy", metavar="NAME", help="a candidate by its name in the comparison")
    add_nproc(train)
    add_resume(train)
    train.set_defaults(when_ended="what was recorded so far is on disk")
    train.add_argument("--force", action="store_true", help="run a candidate that is predicted not to fit")


def run_train(options: argparse.Namespace) -> int:
    """Train the candidate of a plan file, of a name, or the chosen one, here or in processes of its own."""
    if is_rank():
        # From the first moment on, so that other ranks learn why this one fails.
        from partition.runtime.liveness import watching

        with watching(partial(tell_of_signal, options.when_ended)) as watch:
            return _train(options, _choose(options), watch)
    chosen = _choose(options)
    if options.nproc is not None:
        return launch_ranks(options, chosen.candidate)
    from partition.runtime.liveness import watching

    with watching(partial(tell_of_signal, options.when_ended)) as watch:
        return _train(options, chosen, watch)


class _Chosen(NamedTuple):
    """What to train, and the experiment that it comes from."""

    search: Search
    candidate: Candidate
    verdict: str


def _choose(options: argparse.Namespace) -> _Chosen:
    search = Search(load_experiment(options))
    candidate, verdict = _candidate(options, search)
    if not candidate.feasible and not options.force:
        raise NothingFitsError(f"{candidate.name}: {candidate.reason}; `partition plan` lists what fits, --force tries")
    return _Chosen(search, candidate, verdict)


def _train(options: argparse.Namespace, chosen: _Chosen, watch: Watch) -> int:
    """Train, with a run directory and checkpoints that all ranks write and the first one keeps."""
    from partition.data.dataset import load
    from partition.runtime import joined, needs, num_steps, train
    from partition.runtime.checkpoint import Saver, sharing

    search, candidate, verdict = chosen
    config, path = search.config, run_path(options, search.config)
    has_inputs, has_targets = needs(candidate)
    dataset = load(config, has_inputs=has_inputs, has_targets=has_targets)
    with joined(search, candidate, dataset.num_train) as world:
        is_leader = 0 in world.ranks
        resumption = find_resumption(options, config, candidate, path, dataset.num_train, is_leader=is_leader)
        saver = Saver(
            path / FOLDER,
            config,
            candidate,
            dataset.num_train,
            resumption=resumption,
            is_leader=is_leader,
            share=sharing(world),
        )
        directory = RunDirectory(path) if is_leader else None
        if directory:
            directory.begin(
                config_text=dump_config(config),
                plan=plan_record(config, candidate, verdict),
                command=["partition", *options.given],
                resumed_step=saver.continued_step,
            )
        total = num_steps(config, dataset.num_train, candidate.minibatch_size, saver.start)
        is_quiet = options.json or not is_leader
        with (
            closing(directory) if directory else nullcontext(),
            progress(total, candidate, is_quiet=is_quiet, is_simulated=not world.is_shared) as show,
        ):

            def observe(metrics: Metrics) -> None:
                if directory:
                    directory.append(metrics)
                show(metrics)

            result = train(search, candidate, dataset, observe, world=world, watch=watch, saver=saver)
            if directory:
                if result.summary.noise:
                    directory.write_json(
                        "noise.json", _noise(search, candidate, result.summary.noise, dataset.num_train)
                    )
                directory.end(result.summary)
    if directory:
        _tell_result(options, result, directory.path)
    return 128 + result.stop_signal if result.stop_signal else 0


def _noise(search: Search, candidate: Candidate, estimate: NoiseEstimate, num_examples: int) -> dict[str, object]:
    """The document that planner.noise reads."""
    return noise_of_run(
        estimate,
        search.config,
        minibatch_size=candidate.minibatch_size,
        num_examples=num_examples,
        learning_rate=candidate.learning_rate,
    ).model_dump(mode="json")


def _tell_result(options: argparse.Namespace, result: Result, path: Path) -> None:
    if options.json:
        print_json(asdict(result.summary))
    else:
        print(f"\n{run_text(result.summary)}\n\nRun directory: {path}")
    if result.stop_signal:
        name = signal.Signals(result.stop_signal).name
        tell(f"partition: ended by {name} after step {result.last_step}, which is saved; --resume latest goes on")


def _candidate(options: argparse.Namespace, search: Search) -> tuple[Candidate, str]:
    """The candidate to train and the verdict that it comes from."""
    if options.plan and options.strategy:
        raise PartitionError("--plan and --strategy both name what to train; give one of them")
    if options.plan:
        return read_plan(options.plan, search), ""
    comparison = compare_with(search)
    if options.strategy:
        return named_candidate(comparison, options.strategy), comparison.verdict
    if comparison.chosen is None:
        raise NothingFitsError(comparison.verdict)
    return comparison.chosen, comparison.verdict
