"""`partition profile`: measure layers and links here, and write the costs that the planner reads."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from partition.cli.options import Verbs, add_verb, load_experiment, print_json
from partition.cli.processes import add_nproc, is_rank, launch_again
from partition.cli.schedule_options import write_text
from partition.errors import PartitionError
from partition.report.costs import costs_text


def add(verbs: Verbs) -> None:
    """The verb `profile`."""
    verb = add_verb(
        verbs, "profile", run_profile, "measure layers and links on this machine, write costs the planner reads"
    )
    verb.add_argument(
        "--costs-file",
        type=Path,
        metavar="FILE",
        help="where the costs go (default: costs/<name of the experiment>.json)",
    )
    add_nproc(verb)


def run_profile(options: argparse.Namespace) -> int:
    """Measure, as one process or as one of several that all are busy at once; the first one writes and tells."""
    config = load_experiment(options, may_lack_data=True)
    path = options.costs_file or Path("costs") / f"{config.name.strip('.') or 'experiment'}.json"
    if options.nproc is not None and options.nproc > 1 and not is_rank():
        return launch_again(options)
    if options.nproc is not None and options.nproc < 1:
        raise PartitionError(f"--nproc {options.nproc}: takes at least 1 process")
    _prepare(path)
    from partition.runtime.measuring import measure

    file = measure(config)
    if file is None:
        return 0
    write_text(path, file.model_dump_json(indent=1))
    if options.json:
        print_json(file.model_dump(mode="json"))
    else:
        print(costs_text(file))
        print(f"\nCosts written to {path}. Next:\n  {_next(options, path)}")
    return 0


def _prepare(path: Path) -> None:
    """Refuse a place that cannot be written to before a minute is spent on measuring."""
    if path.is_dir():
        raise PartitionError(f"--costs-file {path}: is a folder; give a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PartitionError(f"--costs-file {path}: {error.strerror}; give another place") from None
    place = path if path.exists() and not path.is_file() else path.parent  # a pipe is written to as it is
    if not os.access(place, os.W_OK):
        raise PartitionError(f"--costs-file {path}: {place} may not be written to; give another place")


def _next(options: argparse.Namespace, path: Path) -> str:
    return shlex.join(["partition", "plan", options.config, *options.overrides, *options.set, f"planner.costs={path}"])
