"""`partition schedule`: print, check, convert and draw a schedule, or search for one."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from partition.cli.options import Verbs, add_bare_verb, print_json
from partition.cli.schedule_options import (
    add_costs,
    format_of,
    given_costs,
    is_picture,
    read_costs,
    read_limits,
    trace_text,
    write_picture,
    write_text,
)
from partition.cli.schedule_source import AUTO, Made, add_source, checked, make
from partition.errors import NothingFitsError, PartitionError, ScheduleError
from partition.report.picture import check_size
from partition.report.simulation import excess_of, simulation_record, simulation_text
from partition.report.table import counted
from partition.schedule import Schedule, draw, to_text
from partition.schedule.document import SCHEMA_VERSION, to_document
from partition.schedule.lowering import complete
from partition.schedule.simulation import Simulation, simulate

if TYPE_CHECKING:
    from partition.schedule.auto import Found

FORMATS = ("grid", "csv", "json", "svg", "png", "trace")


def add(verbs: Verbs) -> None:
    """The verb `schedule`."""
    verb = add_bare_verb(verbs, "schedule", run_schedule, "print, check, convert and draw a schedule")
    add_source(verb)
    verb.add_argument("--check", action="store_true", help="say whether it is complete, in order and can run")
    verb.add_argument("--format", choices=FORMATS, help="grid (default), or what the ending of --out-file says")
    verb.add_argument("--lowered", action="store_true", help="csv and json: with sends and receives")
    verb.add_argument("--out-file", type=Path, metavar="F", help="write to a file instead of printing")
    add_costs(verb)


def run_schedule(options: argparse.Namespace) -> int:
    """Make or read the schedule, then check it or show it."""
    if options.overrides:
        raise PartitionError(f"unexpected {options.overrides[0]!r}; a schedule takes a name and options, see --help")
    if options.check:
        return _check(options)
    form = _form(options)
    made = make(options, is_text=form == "csv" and not options.json)
    if form == "csv":
        _put(options, to_text(made.schedule, options.lowered), made, None)
        return 0
    if is_picture(form):
        check_size(made.schedule)
    simulation = simulation_of(options, made.schedule)
    if is_picture(form):
        write_picture(simulation, options.out_file, form)
        _put(options, None, made, simulation)
    else:
        _put(options, _text(options, form, made, simulation), made, simulation)
    excess = excess_of(simulation)
    if excess:
        raise NothingFitsError(f"--memory-limit: {excess}; {AUTO} searches for a schedule that fits")
    return 0


def simulation_of(options: argparse.Namespace, schedule: Schedule) -> Simulation:
    """The schedule replayed on the costs of the options."""
    return simulate(
        schedule,
        read_costs(options, schedule.num_stages, schedule.num_microbatches, schedule.recomputed_stages),
        has_step_barrier=options.step_barrier,
        limits_bytes=read_limits(options, schedule.num_ranks),
        is_in_bytes=options.kept_bytes is not None,
    )


def _form(options: argparse.Namespace) -> str:
    """The format asked for, with what it does not go with refused before anything is made."""
    form: str = options.format or ("grid" if options.out_file is None else format_of(options.out_file, FORMATS))
    if is_picture(form) and options.out_file is None:
        raise PartitionError(f"--format {form} draws a picture; say where with --out-file F.{form}")
    if options.lowered and form not in ("csv", "json"):
        raise PartitionError(f"--lowered adds messages to csv and json, not to {form}; leave it out, or take those")
    costs = given_costs(options)
    if form == "csv" and costs and options.name != AUTO:
        raise PartitionError(f"{costs[0]} changes nothing in the text of a schedule; take --format grid or json")
    return form


def _text(options: argparse.Namespace, form: str, made: Made, simulation: Simulation) -> str:
    if form == "trace":
        return trace_text(simulation)
    if form == "json":
        return json.dumps(_record(options, made, simulation), indent=1) + "\n"
    parts = [draw(made.schedule), simulation_text(simulation)]
    if made.found is not None:
        parts.append(_search_text(made.found))
    if not made.is_bit_identical:
        parts.append(_OTHER_ORDER)
    return "\n\n".join(parts) + "\n"


_OTHER_ORDER = (
    "Gradients are not added in increasing microbatch order: the schedule runs, but its results are not bit-identical "
    "to those of one device."
)


def _search_text(found: Found) -> str:
    proof = "one that no schedule undercuts" if found.gap < 1e-9 else f"{found.gap:.1%} above what none undercuts"
    return f"Grown from {found.origin}, {found.replayed} schedules replayed; the step is {proof}."


def _record(options: argparse.Namespace, made: Made, simulation: Simulation | None) -> dict[str, object]:
    """The JSON document of a schedule."""
    found = made.found
    search = None if found is None else {
        "origin": found.origin,
        "makespan_s": found.makespan_s,
        "lower_bound_s": found.lower_bound_s,
        "gap": found.gap,
        "busiest_rank_s": found.busiest_rank_s,
        "num_replayed": found.replayed,
    }  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION,
        "schedule": to_document(made.schedule, lowered=options.lowered),
        "bit_identical": made.is_bit_identical,
        "figures": None if simulation is None else simulation_record(simulation),
        "search": search,
    }


def _put(options: argparse.Namespace, text: str | None, made: Made, simulation: Simulation | None) -> None:
    """Write the text to its file, or print it; --json prints the document, whatever the file gets."""
    if options.out_file is not None and text is not None:
        write_text(options.out_file, text)
    if options.json:
        print_json(_record(options, made, simulation))
    elif options.out_file is not None:
        print(f"Written to {options.out_file}")
    elif text is not None:
        sys.stdout.write(text)


def _check(options: argparse.Namespace) -> int:
    """Exit code 0, or 2 with rank, position and action."""
    for option in ("format", "out_file"):
        if getattr(options, option) is not None:
            raise PartitionError(f"--check writes nothing; leave --{option.replace('_', '-')} out")
    source = str(options.file) if options.file is not None else options.name
    try:
        made = make(options)
        checked(complete(made.schedule))
    except ScheduleError as error:
        if not options.json:
            raise
        place = {"rank": error.rank, "position": error.position, "action": error.action}
        print_json({"schema_version": SCHEMA_VERSION, "source": source, "problem": {"message": str(error), **place}})
        return error.exit_code
    if options.json:
        document = to_document(replace(made.schedule, rows=()))
        summary = {key: document[key] for key in ("num_stages", "num_microbatches", "placement", "is_forward_only")}
        ranks = {"num_ranks": made.schedule.num_ranks, "bit_identical": made.is_bit_identical}
        print_json({"schema_version": SCHEMA_VERSION, "source": source, "problem": None, **summary, **ranks})
        return 0
    schedule = made.schedule
    print(
        f"{source}: complete, in order and free of deadlock: {counted(schedule.num_ranks, 'rank')}, "
        f"{counted(schedule.num_stages, 'stage')}, {counted(schedule.num_microbatches, 'microbatch', 'microbatches')}"
    )
    if not made.is_bit_identical:
        print(_OTHER_ORDER)
    return 0
