"""`partition curvature`: the largest eigenvalue of the Hessian of J, on any split that trains."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from partition.cli.candidates import named_candidate
from partition.cli.options import Verbs, add_out, add_verb, load_experiment, print_json, run_path
from partition.cli.processes import add_nproc, is_rank, launch_ranks, tell_of_signal
from partition.config import ExperimentConfig
from partition.config.planner import Strategy
from partition.errors import NothingFitsError, PartitionError
from partition.plan import Candidate, Search, compare_with
from partition.plan.curvature import STRATEGIES, CurvatureSearch
from partition.plan.plan_file import read_plan
from partition.record.checkpoint import CheckpointRecord, check_serves, find
from partition.record.curvature import SCHEMA_VERSION, CurvatureRecord
from partition.report.curvature import curvature_text

if TYPE_CHECKING:
    from partition.data.dataset import Dataset
    from partition.runtime.curvature import Curvature
    from partition.runtime.liveness import Watch
    from partition.runtime.world import World

TOLERANCE, MAX_PRODUCTS = 1e-2, 200


def add(verbs: Verbs) -> None:
    """The verb `curvature`."""
    verb = add_verb(verbs, "curvature", run_curvature, "the largest eigenvalue of the Hessian, by power iteration")
    verb.add_argument(
        "--checkpoint",
        metavar="CHECKPOINT",
        help="`latest` or a number of steps in the run directory, or a path (default: the initial parameters)",
    )
    verb.add_argument("--plan", type=Path, metavar="FILE", help="on the split of a plan that `partition plan` wrote")
    verb.add_argument(
        "--strategy", metavar="NAME", help="on the layout of this candidate (default: the best that fits)"
    )
    verb.add_argument(
        "--examples",
        metavar="N",
        help="J over the first N examples of an epoch, or `all` (default: the first minibatch)",
    )
    verb.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="T",
        help=f"end where the residual is at most T times the eigenvalue (default {TOLERANCE:g})",
    )
    verb.add_argument(
        "--max-products",
        type=int,
        default=MAX_PRODUCTS,
        metavar="N",
        help=f"end after so many Hessian-vector products (default {MAX_PRODUCTS})",
    )
    add_nproc(verb)
    add_out(verb)


def run_curvature(options: argparse.Namespace) -> int:
    """The largest eigenvalue, here or in processes of its own."""
    if not is_rank():
        config, search, candidate = _choose(options)
        if options.nproc is not None:
            return launch_ranks(options, candidate)
    from partition.runtime.liveness import watching

    with watching(partial(tell_of_signal, options.when_ended)) as watch:
        if is_rank():  # from the first moment on, so that other ranks learn why this one fails
            config, search, candidate = _choose(options)
        return _run(options, config, search, candidate, watch)


def _choose(options: argparse.Namespace) -> tuple[ExperimentConfig, CurvatureSearch, Candidate]:
    _check(options)
    config = load_experiment(options)
    search = CurvatureSearch(config)
    candidate = _candidate(options, config, search)
    if not candidate.feasible:
        raise NothingFitsError(
            f"{candidate.name}, for products with the Hessian: {candidate.reason}; take more stages or microbatches"
        )
    return config, search, candidate


def _check(options: argparse.Namespace) -> None:
    if not 0 < options.tolerance < 1:
        raise PartitionError(f"--tolerance {options.tolerance}: give a number above 0 and below 1, as 0.01")
    if options.max_products < 1:
        raise PartitionError(f"--max-products {options.max_products}: give at least 1")
    if options.plan and options.strategy:
        raise PartitionError("--plan and --strategy both say where to run; give one of them")


def _candidate(options: argparse.Namespace, config: ExperimentConfig, search: CurvatureSearch) -> Candidate:
    if options.plan:
        return search.priced_as(read_plan(options.plan, Search(config)))
    comparison = compare_with(search)
    if options.strategy:
        _check_strategy(options.strategy)
        return named_candidate(comparison, options.strategy, search)
    if comparison.chosen is None:
        raise NothingFitsError(
            f"no layout for products with the Hessian fits on {len(config.cluster.devices)} devices: they take two "
            "tensors where training takes one; take more devices, or more microbatches (planner.num_microbatches)"
        )
    return comparison.chosen


def _check_strategy(name: str) -> None:
    """Of a way that there is for training alone, say so."""
    training_only = set(get_args(Strategy)) - set(STRATEGIES)
    if training_only & set(name.split("-")):
        ways = f"{', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}"
        raise PartitionError(f"--strategy {name}: is for training, products with the Hessian take {ways}")


def _run(
    options: argparse.Namespace, config: ExperimentConfig, search: CurvatureSearch, candidate: Candidate, watch: Watch
) -> int:
    from partition.data.dataset import load
    from partition.runtime import joined, needs

    record = None if options.checkpoint is None else find(options.checkpoint, run_path(options, config))
    if record:
        check_serves(record, config, on_held_out=False)
    has_inputs, has_targets = needs(candidate)
    dataset = load(config, has_inputs=has_inputs, has_targets=has_targets)
    num_examples = _num_examples(options, config, dataset.num_train)
    with joined(search, candidate, dataset.num_train) as world:
        found, document = _measure(options, search, candidate, dataset, num_examples, record, world, watch)
        is_leader = 0 in world.ranks
    if is_leader:
        print_json(asdict(document)) if options.json else print(curvature_text(document, config.optimizer))
    return 128 + found.stop_signal if found.stop_signal else 0


def _num_examples(options: argparse.Namespace, config: ExperimentConfig, num_train: int) -> int:
    asked = options.examples
    if asked is None:
        return min(config.training.minibatch_size, num_train)
    if asked == "all":
        return num_train
    count = int(asked) if asked.isascii() and asked.isdigit() and len(asked) <= 15 else 0
    if not 1 <= count <= num_train:
        raise PartitionError(
            f"--examples {asked}: give a number from 1 to {num_train}, the examples to train on, or all"
        )
    return count


def _measure(
    options: argparse.Namespace,
    search: CurvatureSearch,
    candidate: Candidate,
    dataset: Dataset,
    num_examples: int,
    record: CheckpointRecord | None,
    world: World,
    watch: Watch,
) -> tuple[Curvature, CurvatureRecord]:
    from partition.data.minibatches import minibatches
    from partition.runtime.checkpoint import held_layers, restore
    from partition.runtime.curvature import CurvatureFleet, Iterate, largest_curvature, product_cost

    fleet = CurvatureFleet(search, candidate, world)
    if record:
        restore(record, held_layers(fleet), parameters_only=True)
    seed = search.config.training.seed
    # In the order of the first epoch: the first minibatch is the first that training sees.
    examples = minibatches(dataset.num_train, num_examples, seed, 0)[0]

    def observe(_: Iterate) -> None:
        watch.begin()

    found = largest_curvature(
        fleet,
        dataset.train_x,
        dataset.train_y,
        examples,
        tolerance=options.tolerance,
        max_products=options.max_products,
        seed=seed,
        observe=observe,
        stop_signal=lambda: watch.stop_signal,
    )
    if found.stop_signal:
        watch.acknowledge()
    num_minibatches = -(-num_examples // candidate.minibatch_size)
    return found, CurvatureRecord(
        schema_version=SCHEMA_VERSION,
        eigenvalue=found.eigenvalue,
        residual=found.residual,
        tolerance=options.tolerance,
        is_converged=found.is_converged,
        num_products=found.num_products,
        most_negative=found.most_negative,
        num_examples=num_examples,
        num_minibatches=num_minibatches,
        checkpoint=str(record.path) if record else None,
        step=record.step if record else 0,
        candidate=candidate.name,
        num_stages=candidate.num_stages,
        product=product_cost(fleet, found.product_s / num_minibatches),
    )
