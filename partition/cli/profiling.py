"""`partition profile`: measure layers and links here, and write the costs that the planner reads."""

from __future__ import annotations

import argparse
import os
import shlex
from errno import EACCES, EEXIST, EISDIR
from pathlib import Path

from partition.cli.options import Verbs, add_verb, load_experiment, print_json
from partition.cli.processes import add_nproc, is_rank, launch_again
from partition.cli.schedule_options import is_written_whole, temporary_of, write_text
from partition.config.file_start import read_start
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
    verb.set_defaults(when_ended="no costs were written")


def run_profile(options: argparse.Namespace) -> int:
    """Measure, as one process or as one of several that all are busy at once; the first one writes and tells."""
    config = load_experiment(options, may_lack_data=True)
    path = options.costs_file or Path("costs") / f"{config.name.strip('.') or 'experiment'}.json"
    if options.nproc is not None and options.nproc < 1:
        raise PartitionError(f"--nproc {options.nproc}: takes at least 1 process")
    if os.environ.get("RANK", "0") == "0":  # the one that writes; of several started here, the one that starts them
        _prepare(path)
    from partition.runtime.measuring import check_devices, measure

    if options.nproc is not None and options.nproc > 1 and not is_rank():
        check_devices(config, options.nproc)
        return launch_again(options)
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
    try:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_written_whole(path):
            # Only an attempt tells: root may write anywhere, and yet not everywhere.
            temporary_of(path).touch()
            temporary_of(path).unlink()
        elif path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))
        if path.is_file() and read_start(path, 1000).lstrip()[:1] not in (b"", b"{"):
            raise FileExistsError(EEXIST, "it holds something else than costs")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name holds a null character"
        raise PartitionError(f"--costs-file {str(path)!r}: cannot be written ({reason}); give another place") from None


def _next(options: argparse.Namespace, path: Path) -> str:
    return shlex.join(["partition", "plan", options.config, *options.overrides, *options.set, f"planner.costs={path}"])
