"""`partition graph`: the computational graph of the model, forward, backward or of second order, told or drawn."""

from __future__ import annotations

import argparse
from pathlib import Path

from partition.cli.candidates import named_candidate
from partition.cli.options import Verbs, add_verb, load_experiment, print_json
from partition.cli.schedule_options import format_of, write_text, written_whole
from partition.config import ExperimentConfig
from partition.costs.curvature import check_format
from partition.errors import PartitionError
from partition.graph import build_network
from partition.graph.computational import GraphKind, build_graph
from partition.plan import Candidate, Search, compare_with
from partition.plan.plan_file import read_plan
from partition.report.graph import Subject
from partition.report.graph.picture import FORMATS as PICTURES
from partition.report.graph.picture import check_size, draw_graph
from partition.report.graph.record import graph_dot, graph_record
from partition.report.graph.text import graph_text

SCHEMA_VERSION = 1


def add(verbs: Verbs) -> None:
    """The verb `graph`."""
    verb = add_verb(
        verbs, "graph", run_graph, "the computational graph: operators, variables, what is kept and carried"
    )
    kinds = verb.add_mutually_exclusive_group()
    for kind, text in (
        (GraphKind.FORWARD, "the forward, with penalty and objective (default)"),
        (GraphKind.BACKWARD, "the backward: every gradient, and what it reads of the forward"),
        (GraphKind.SECOND_ORDER, "the backward of the backward: the Hessian times a direction"),
    ):
        flag = f"--{kind.value.replace('_', '-')}"
        kinds.add_argument(flag, dest="kind", action="store_const", const=kind, help=text)
    verb.add_argument("--stages", type=int, metavar="N", help="on the fastest split over N devices, by 1F1B")
    verb.add_argument("--plan", type=Path, metavar="FILE", help="on the stages of a plan that `partition plan` wrote")
    verb.add_argument("--strategy", metavar="NAME", help="on those of a candidate by its name")
    verb.add_argument("--out-file", type=Path, metavar="F", help="draw it, in SVG, PNG or DOT by the ending")


def run_graph(options: argparse.Namespace) -> int:
    """Print the graph, or draw it."""
    form = None if options.out_file is None else format_of(options.out_file, (*PICTURES, "dot"))
    config = load_experiment(options, may_lack_data=True)
    if options.kind is GraphKind.SECOND_ORDER:
        check_format(is_mixed=config.precision.is_mixed)
    subject = _subject(config, options.kind or GraphKind.FORWARD, _candidate(options, config))
    if form is not None:
        _write(subject, options.out_file, form)
    if options.json:
        print_json({"schema_version": SCHEMA_VERSION, "config": config.name, **graph_record(subject)})
    elif form is not None:
        print(f"Written to {options.out_file}")
    else:
        print(graph_text(subject))
    return 0


def _write(subject: Subject, path: Path, form: str) -> None:
    if form == "dot":
        write_text(path, graph_dot(subject))
        return
    check_size(subject)
    with written_whole(path) as temporary:
        draw_graph(subject, temporary, form)


def _subject(config: ExperimentConfig, kind: GraphKind, candidate: Candidate | None) -> Subject:
    """The graph on the stages of one replica; without a candidate on one stage, the minibatch whole."""
    stages = [] if candidate is None else [stage for stage in candidate.stages if stage.replica_index == 0]
    segments = [(stage.first_layer, stage.last_layer) for stage in stages]
    return Subject(
        name=config.name,
        graph=build_graph(build_network(config.model), kind, segments or None),
        rows=config.training.minibatch_size if candidate is None else candidate.microbatch_size,
        itemsize=config.precision.itemsize,
        devices=tuple(stage.device for stage in stages),
        candidate=None if candidate is None else candidate.name,
    )


def _candidate(options: argparse.Namespace, config: ExperimentConfig) -> Candidate | None:
    """That of the plan, of the name, or of so many stages; None where none is asked for."""
    given = [f"--{name}" for name in ("plan", "strategy", "stages") if getattr(options, name) is not None]
    if len(given) > 1:
        raise PartitionError(f"{given[0]} and {given[1]} both say where the stages are; give one of them")
    if not given:
        return None
    if options.stages is not None:
        return _of_stages(config, options.stages)
    search = Search(config)
    candidate = (
        read_plan(options.plan, search) if options.plan else named_candidate(compare_with(search), options.strategy)
    )
    if candidate.sharding is not None:
        raise PartitionError(
            f"{candidate.name} shares out every layer over its devices, there are no stages to draw; take a pipeline"
        )
    return candidate


def _of_stages(config: ExperimentConfig, num_stages: int) -> Candidate:
    """The fastest candidate of so many stages, one a device; fitting ones first."""
    layers, devices = build_network(config.model).num_layers, len(config.cluster.devices)
    most = min(layers, devices)
    if not 1 <= num_stages <= most:
        there_are = f"the network has {layers} layers and the cluster {devices} devices"
        raise PartitionError(f"--stages {num_stages}: {there_are}; give 1 to {most}")
    if num_stages == 1:
        return Search(config).whole()
    changes = {"strategies": ("pipeline",), "schedules": ("1f1b",), "num_stages": (num_stages,)}
    narrowed = config.model_copy(update={"planner": config.planner.model_copy(update=changes)})
    found = [one for one in compare_with(Search(narrowed)).candidates if one.stages and one.predicted]
    if not found:
        raise PartitionError(f"--stages {num_stages}: no pipeline of so many stages can be laid out; give fewer")
    return min(found, key=lambda one: (not one.feasible, one.predicted.step_s if one.predicted else 0.0))
