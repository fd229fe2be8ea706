"""What `schedule` and `simulate` share: what actions cost, and where a picture or text goes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from partition.errors import PartitionError
from partition.report.picture import FORMATS as PICTURES
from partition.report.picture import draw_picture
from partition.report.trace import chrome_trace
from partition.schedule import ReplayCosts
from partition.schedule.replay_costs import stage_costs
from partition.schedule.simulation import Simulation
from partition.units import Quantity, parse_bytes, parse_seconds

COSTS = ("forward_s", "input_grad_s", "weight_grad_s", "send_s", "kept_bytes", "memory_limit")
MOST_KEPT_BYTES = 2**46
"""So that sums over all microbatches fit 64 bits."""
_MOST_PARTS = 100_000

Number = TypeVar("Number", int, float)


def add_costs(verb: argparse.ArgumentParser) -> None:
    """The options that say what the actions of a schedule cost."""
    group = verb.add_argument_group(
        "costs", "of one microbatch on one stage; one value for all stages, or one for each, separated by commas"
    )
    for name, text in (
        ("forward-s", "seconds of a forward (default 1)"),
        ("input-grad-s", "seconds of an input gradient (default 1)"),
        ("weight-grad-s", "seconds of a weight gradient (default 1); B takes both"),
        ("send-s", "seconds of a message to the next stage, or back (default 0)"),
    ):
        group.add_argument(f"--{name}", metavar="S", help=text)
    group.add_argument(
        "--kept-bytes",
        metavar="BYTES",
        help="what a stage keeps from F to B, and from I to W twice that; without it, memory counts microbatches",
    )
    group.add_argument(
        "--memory-limit", metavar="M", help="of each rank, in bytes, or in microbatches without --kept-bytes"
    )
    group.add_argument("--step-barrier", action="store_true", help="all ranks begin their optimizer step together")


def given_costs(options: argparse.Namespace) -> list[str]:
    """The cost options that were given, as they are written."""
    given = [name for name in COSTS if getattr(options, name) is not None]
    return [f"--{name.replace('_', '-')}" for name in given] + ["--step-barrier"] * options.step_barrier


def read_costs(
    options: argparse.Namespace, num_stages: int, num_microbatches: int, recomputed: Collection[int] = ()
) -> ReplayCosts:
    """The costs asked for; raises PartitionError for what is no quantity or not one for each stage."""

    def seconds(name: str, default: float) -> list[float]:
        return _each(options, name, default, parse_seconds, num_stages, "stage")

    kept_bytes = _each(options, "kept_bytes", 1, parse_bytes, num_stages, "stage")
    if max(kept_bytes) > MOST_KEPT_BYTES:
        raise PartitionError(f"--kept-bytes: {max(kept_bytes)} bytes of one microbatch are more than 64 TiB; give less")
    return stage_costs(
        num_microbatches=num_microbatches,
        forward_s=seconds("forward_s", 1.0),
        input_grad_s=seconds("input_grad_s", 1.0),
        weight_grad_s=seconds("weight_grad_s", 1.0),
        send_s=seconds("send_s", 0.0),
        kept_bytes=kept_bytes,
        recomputed=recomputed,
    )


def read_limits(options: argparse.Namespace, num_ranks: int) -> tuple[int, ...]:
    """The memory limit of each rank; empty where none was given."""
    if options.memory_limit is None:
        return ()
    return tuple(_each(options, "memory_limit", 0, parse_bytes, num_ranks, "rank"))


def _each(
    options: argparse.Namespace, name: str, default: Number, parse: Callable[[Quantity], Number], count: int, what: str
) -> list[Number]:
    """One value for each of `count` stages or ranks."""
    text, option = getattr(options, name), f"--{name.replace('_', '-')}"
    if text is None:
        return [default] * count
    parts = text.split(",", _MOST_PARTS)
    try:
        values = [parse(part.strip()) for part in parts]
    except PartitionError as error:
        raise PartitionError(f"{option}: {error}") from None
    if len(values) not in (1, count):
        raise PartitionError(f"{option}: {len(values)} values for {count} {what}s; give one for all or one for each")
    return values * count if len(values) == 1 else values


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it; raises PartitionError where it cannot be written."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def temporary_of(path: Path) -> Path:
    """Under which name a file is written until it is complete."""
    return path.with_name(f".{path.name}.part")


def is_written_whole(path: Path) -> bool:
    """Whether a file takes the place of another: not of what exists and is no regular file, such as a pipe."""
    return not path.is_symlink() and (path.is_file() or not path.exists())


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of the other once it is complete, and is gone if it never is.

    What exists and is no regular file, such as a pipe or the link /dev/stdout, is written to as it is.
    """
    temporary = path
    try:
        is_replaced = is_written_whole(path)
        temporary = temporary_of(path) if is_replaced else path
        yield temporary
        if is_replaced:
            os.replace(temporary, path)
    except PartitionError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name holds a null character"
        raise PartitionError(f"{str(path)!r}: cannot be written ({reason}); choose another place") from None
    finally:
        if temporary is not path:
            with suppress(OSError, ValueError):
                temporary.unlink(missing_ok=True)


def write_picture(simulation: Simulation, path: Path, picture_format: str) -> None:
    """Draw a simulation into a file, under a temporary name at first."""
    with written_whole(path) as temporary:
        draw_picture(simulation, temporary, picture_format)


def trace_text(simulation: Simulation) -> str:
    """The Chrome trace as text."""
    return json.dumps(chrome_trace(simulation), separators=(",", ":")) + "\n"


def format_of(path: Path, known: Sequence[str]) -> str:
    """What a file's ending asks for; raises PartitionError for others than those known."""
    ending = path.suffix.removeprefix(".").lower()
    if ending not in known:
        raise PartitionError(f"--out-file {str(path)!r}: what to write is not known; end it in .{', .'.join(known)}")
    return ending


def is_picture(form: str) -> bool:
    """Whether a format is drawn rather than written."""
    return form in PICTURES
