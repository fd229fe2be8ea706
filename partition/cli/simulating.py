"""`partition simulate`: one step of a plan or a schedule, action by action, in time and memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from partition.cli.candidates import named_candidate
from partition.cli.options import Verbs, add_bare_verb, load_plannable, print_json
from partition.cli.schedule_options import (
    add_costs,
    format_of,
    given_costs,
    is_picture,
    trace_text,
    write_picture,
    write_text,
)
from partition.cli.schedule_source import add_file, read_file
from partition.cli.scheduling import simulation_of
from partition.config import AnyConfig, load_config
from partition.errors import ConfigError, NothingFitsError, PartitionError
from partition.plan import Candidate, Search, compare_with
from partition.plan.plan_file import planned_experiment, read_plan
from partition.plan.simulation import simulate_candidate
from partition.report.simulation import memory_text, simulation_record, simulation_text
from partition.schedule.simulation import Simulation

SCHEMA_VERSION = 1


def add(verbs: Verbs) -> None:
    """The verb `simulate`."""
    verb = add_bare_verb(
        verbs, "simulate", run_simulate, "replay a plan or a schedule: step time, idle time, memory over time"
    )
    verb.add_argument("config", nargs="?", metavar="CONFIG", help="the experiment whose chosen plan is replayed")
    verb.add_argument("words", nargs="*", metavar="key.path=value", help="values that replace those of the file")
    verb.add_argument("--set", action="append", default=[], metavar="key.path=value", help="the same")
    verb.add_argument("--plan", type=Path, metavar="FILE", help="a plan that `partition plan` wrote")
    verb.add_argument("--strategy", metavar="NAME", help="a candidate by its name in the comparison")
    add_file(verb)
    verb.add_argument("--trace", type=Path, metavar="FILE.json", help="write a Chrome trace, for Perfetto")
    verb.add_argument("--out-file", type=Path, metavar="F", help="draw it, in SVG or PNG by the ending")
    add_costs(verb)


def run_simulate(options: argparse.Namespace) -> int:
    """Replay, report, and write the trace and the picture asked for."""
    picture = None if options.out_file is None else format_of(options.out_file, ("svg", "png"))
    _separate_overrides(options)
    if options.file is not None:
        subject, simulation = _of_file(options)
    else:
        subject, simulation = _of_plan(options)
    written = []
    if options.trace is not None:
        write_text(options.trace, trace_text(simulation))
        written.append(options.trace)
    if picture is not None and is_picture(picture):
        write_picture(simulation, options.out_file, picture)
        written.append(options.out_file)
    if options.json:
        print_json({"schema_version": SCHEMA_VERSION, **subject, **simulation_record(simulation)})
        return 0
    print(f"{simulation_text(simulation)}\n\n{memory_text(simulation)}")
    for path in written:
        print(f"Written to {path}")
    return 0


def _separate_overrides(options: argparse.Namespace) -> None:
    """`--plan FILE key=value` has no CONFIG: what stands in its place is an override."""
    options.overrides = [*options.words, *options.overrides]
    is_override = options.config is not None and "=" in options.config and not Path(options.config).exists()
    if is_override:
        options.overrides.insert(0, options.config)
        options.config = None


def _of_file(options: argparse.Namespace) -> tuple[dict[str, object], Simulation]:
    """A schedule of a file on the costs of the options."""
    others = {"CONFIG": options.config, "--plan": options.plan, "--strategy": options.strategy}
    others |= {"key.path=value": [*options.overrides, *options.set] or None}
    given = next((name for name, value in others.items() if value is not None), None)
    if given is not None:
        raise PartitionError(f"--file is replayed on the costs of options, not on those of {given}; give one of them")
    made = read_file(options)
    subject: dict[str, object] = {"source": str(options.file), "schedule": made.schedule.name}
    return subject, simulation_of(options, made.schedule)


def _of_plan(options: argparse.Namespace) -> tuple[dict[str, object], Simulation]:
    """A candidate of an experiment on the costs of its network and devices."""
    costs = given_costs(options)
    if costs or options.forward_only:
        wrong = costs[0] if costs else "--forward-only"
        raise PartitionError(f"{wrong} goes with --file; a plan has the costs of its network and devices")
    config, source = _experiment(options)
    search = Search(config)
    candidate = _candidate(options, search)
    subject: dict[str, object] = {"source": source, "candidate": candidate.name, "schedule": candidate.schedule}
    return subject, simulate_candidate(search, candidate)


def _experiment(options: argparse.Namespace) -> tuple[AnyConfig, str]:
    """The experiment of CONFIG, or the one that the plan was made for."""
    if options.config is not None:
        return load_plannable(options), options.config
    if options.plan is None:
        raise PartitionError("give an experiment CONFIG, --plan FILE of `partition plan`, or --file F of a schedule")
    overrides = [*options.overrides, *options.set]
    return _load_planned(planned_experiment(options.plan), options.plan, overrides), str(options.plan)


def _load_planned(experiment: Mapping[str, Any], plan: Path, overrides: list[str]) -> AnyConfig:
    """The experiment of a plan, read as a file would be; JSON is YAML."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.yaml"
        path.write_text(json.dumps(experiment), encoding="utf-8")
        try:
            return load_config(path, overrides, name=plan.parent.name or "plan")
        except ConfigError as error:
            problems = [problem._replace(file=str(plan), line=None) for problem in error.problems]
            raise ConfigError(problems) from None


def _candidate(options: argparse.Namespace, search: Search) -> Candidate:
    """The candidate of the plan, of the name, or the chosen one."""
    if options.plan is not None and options.strategy is not None:
        raise PartitionError("--plan and --strategy both name what to replay; give one of them")
    if options.plan is not None:
        return read_plan(options.plan, search)
    comparison = compare_with(search)
    if options.strategy is None:
        if comparison.chosen is None:
            raise NothingFitsError(comparison.verdict)
        return comparison.chosen
    return named_candidate(comparison, options.strategy)
