"""`partition checkpoint`: list, verify, export and copy what runs have saved."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from partition.cli.options import Run, Verbs, add_bare_verb, print_json
from partition.config.schema import NumberFormat
from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint import (
    FOLDER,
    LATEST,
    CheckpointRecord,
    find,
    find_damage,
    find_folder,
    list_checkpoints,
    read_document,
    read_latest,
)
from partition.report.table import table
from partition.units import format_bytes

SCHEMA_VERSION = 1


def add(verbs: Verbs) -> None:
    """The verb `checkpoint` and what it does."""
    verb = verbs.add_parser("checkpoint", help="list, verify, export or copy checkpoints")
    actions = verb.add_subparsers(metavar="ACTION", required=True)
    listing = add_bare_verb(actions, "ls", run_ls, "list the checkpoints of a run")
    listing.add_argument("place", type=Path, metavar="RUN", help="a run directory, or its folder of checkpoints")
    _add_checkpoint(actions, "verify", run_verify, "compare size and SHA-256 of every file with what was written")
    export = _add_checkpoint(
        actions, "export", run_export, "write the parameters as one file, under the names of module.to_torch()"
    )
    export.add_argument("--out-file", type=Path, required=True, metavar="FILE", help="the file to write")
    export.add_argument("--format", choices=("safetensors", "npz"), default="safetensors", help="default: safetensors")
    reshard = _add_checkpoint(
        actions,
        "reshard",
        run_reshard,
        "verify a checkpoint and write it anew in another run directory, if asked in another number format; any number "
        "of stages reads a checkpoint as it is, so nothing has to be cut",
    )
    reshard.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run directory to write to")
    reshard.add_argument("--number-format", choices=get_args(NumberFormat), help="default: as it is")


def _add_checkpoint(actions: Verbs, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    action = add_bare_verb(actions, name, run, text)
    action.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, or a run directory, whose latest is meant"
    )
    return action


def run_ls(options: argparse.Namespace) -> int:
    """What there is, by step; what cannot be read is listed with the reason."""
    _refuse_more(options)
    if not options.place.is_dir():
        raise PartitionError(
            f"{options.place}: there is no such directory; name one that `partition train` has written"
        )
    folder = find_folder(options.place)
    paths = list_checkpoints(folder)
    latest, problem = _latest(folder, paths)
    rows = [_row(path, is_latest=path.name == latest) for path in paths]
    if options.json:
        place = {"directory": str(folder), "latest": latest, "problem": problem}
        print_json({"schema_version": SCHEMA_VERSION, **place, "checkpoints": rows})
        return 0
    print(_listing(rows) if rows else f"{folder}: there are no checkpoints")
    if problem:
        print(problem)
    return 0


def _latest(folder: Path, paths: Sequence[Path]) -> tuple[str | None, str | None]:
    """What `latest` names, and what is wrong with it."""
    try:
        name = read_latest(folder)
    except CheckpointError as error:
        return None, str(error)
    is_there = name is None or name in [path.name for path in paths]
    return name, None if is_there else f"{folder / LATEST}: names {name}, which is not there"


def _row(path: Path, *, is_latest: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": path.name, "path": str(path), "is_latest": is_latest, "problem": None}
    try:
        record = read_document(path)
    except PartitionError as error:
        return {**row, "problem": str(error)}
    facts = record.facts
    return {
        **row,
        **asdict(facts.position),
        "num_layers": len(record.files),
        "num_bytes": record.num_bytes,
        "number_format": facts.number_format,
        "candidate": facts.candidate.name,
        "torch_version": facts.surroundings.torch_version,
        "written": facts.written,
    }


def _listing(rows: list[dict[str, Any]]) -> str:
    cells = [
        (
            f"{row['name']}{' <- latest' if row['is_latest'] else ''}",
            *(("damaged",) * 5 if row["problem"] else _cells(row)),
        )
        for row in rows
    ]
    problems = [row["problem"] for row in rows if row["problem"]]
    header = ("checkpoint", "step", "epoch", "size", "candidate", "written")
    return "\n".join([table(header, cells, left=(0, 4)), *problems])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (f"{row['step']:,}", str(row["epoch"]), format_bytes(row["num_bytes"]), row["candidate"], row["written"])


def run_verify(options: argparse.Namespace) -> int:
    """Everything that is damaged, at once."""
    record = _find(options)
    problems = list(find_damage(record))
    if options.json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "path": str(record.path),
                "step": record.step,
                "num_files": len(record.files),
                "num_bytes": record.num_bytes,
                "problems": problems,
            }
        )
        return CheckpointError.exit_code if problems else 0
    if problems:
        raise CheckpointError("\n".join(problems))
    print(f"{record.path}: {len(record.files)} files, {format_bytes(record.num_bytes)}, as they were written")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """One file for other programs."""
    record = _find(options)
    from partition.runtime.checkpoint import export

    shapes = export(record, options.out_file, options.format)
    if options.json:
        print_json(
            {"schema_version": SCHEMA_VERSION, "file": str(options.out_file), "step": record.step, "shapes": shapes}
        )
    else:
        print(f"{len(shapes)} tensors of step {record.step} written to {options.out_file}")
    return 0


def run_reshard(options: argparse.Namespace) -> int:
    """The same state elsewhere."""
    record = _find(options)
    from partition.runtime.checkpoint import CheckpointWriter, reshard

    writer = CheckpointWriter(options.out / FOLDER, keep=None)
    path = reshard(record, writer, options.number_format)
    if options.json:
        written = read_document(path)
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "path": str(path),
                "step": written.step,
                "number_format": written.facts.number_format,
                "num_bytes": written.num_bytes,
            }
        )
    else:
        print(f"Written to {path}")
    return 0


def _find(options: argparse.Namespace) -> CheckpointRecord:
    """A path even where it looks like a number or is called latest: these verbs know no run directory."""
    _refuse_more(options)
    return find(f"./{options.checkpoint}" if not Path(options.checkpoint).is_absolute() else options.checkpoint, Path())


def _refuse_more(options: argparse.Namespace) -> None:
    if options.overrides:
        raise PartitionError(f"{' '.join(options.overrides)}: is not an option of this verb; remove it")
