"""`partition memory`: what a plan holds, layer by layer and device by device, and the largest minibatch that fits."""

from __future__ import annotations

import argparse
from pathlib import Path

from partition.cli.candidates import named_candidate
from partition.cli.options import Verbs, add_verb, load_experiment, print_json
from partition.cli.schedule_options import format_of, written_whole
from partition.errors import PartitionError
from partition.plan import Candidate, Search, compare_with
from partition.plan.curve import memory_curve
from partition.plan.footprint import footprint
from partition.plan.largest import largest_fitting
from partition.plan.plan_file import read_plan
from partition.report.curve import draw_curve
from partition.report.largest import largest_text
from partition.report.memory import curve_text, footprint_text, memory_record

SCHEMA_VERSION = 1
MOST_MICROBATCHES = 1024
"""Of `--microbatches`: every size tried writes out a schedule of so many."""
USUAL_MICROBATCHES = 8
"""Where neither the experiment nor its plan has a number to go by."""


def add(verbs: Verbs) -> None:
    """The verb `memory`."""
    verb = add_verb(verbs, "memory", run_memory, "footprint of training and prediction, and the largest that fits")
    verb.add_argument("--plan", type=Path, metavar="FILE", help="a plan that `partition plan` wrote")
    verb.add_argument("--strategy", metavar="NAME", help="a candidate by its name (default: the chosen one)")
    verb.add_argument(
        "--microbatches",
        type=int,
        metavar="M",
        help="for the largest that fits: microbatches of accumulation, pipelines and replicas",
    )
    verb.add_argument("--curve", action="store_true", help="memory against minibatch and microbatch size")
    verb.add_argument("--out-file", type=Path, metavar="F", help="draw the curve, in SVG or PNG by the ending")


def run_memory(options: argparse.Namespace) -> int:
    """Tell what is held, where and when, in training and in prediction, and what the largest minibatches are."""
    picture = None if options.out_file is None else format_of(options.out_file, ("svg", "png"))
    config = load_experiment(options, may_lack_data=True)
    counts = _counts(options)
    search = Search(config)
    candidate = _candidate(options, search)
    found = footprint(search, candidate)
    curve = memory_curve(search, candidate) if options.curve or picture else None
    fits = largest_fitting(search, counts or _usual_counts(search, candidate))
    if picture and curve:
        with written_whole(options.out_file) as temporary:
            draw_curve(curve, temporary, picture)
    if options.json:
        print_json({"schema_version": SCHEMA_VERSION, "config": config.name, **memory_record(found, fits, curve)})
        return 0
    print(
        "\n\n".join([footprint_text(found, config.name), largest_text(fits), *([curve_text(curve)] if curve else [])])
    )
    if picture:
        print(f"\nWritten to {options.out_file}")
    return 0


def _counts(options: argparse.Namespace) -> tuple[int, ...]:
    """The number of microbatches asked for; none where none was."""
    if options.microbatches is None:
        return ()
    if not 1 <= options.microbatches <= MOST_MICROBATCHES:
        raise PartitionError(f"--microbatches {options.microbatches}: give 1 to {MOST_MICROBATCHES}")
    return (options.microbatches,)


def _usual_counts(search: Search, candidate: Candidate) -> tuple[int, ...]:
    """Those of the experiment's planner section, or of the plan."""
    asked = tuple(count for count in search.config.planner.num_microbatches or () if count <= MOST_MICROBATCHES)
    if asked:
        return asked
    count = candidate.num_microbatches
    return (count if 1 < count <= MOST_MICROBATCHES else USUAL_MICROBATCHES,)


def _candidate(options: argparse.Namespace, search: Search) -> Candidate:
    """That of the plan, of the name, or the chosen one; where nothing fits, the whole minibatch on one device."""
    if options.plan is not None and options.strategy is not None:
        raise PartitionError("--plan and --strategy both name what to look at; give one of them")
    if options.plan is not None:
        return read_plan(options.plan, search)
    comparison = compare_with(search)
    if options.strategy is not None:
        return named_candidate(comparison, options.strategy)
    return comparison.chosen or search.whole()
