"""`partition evaluate` and `partition predict`: what a checkpoint's parameters are worth, and what they say."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partition.cli.layout import find_layout
from partition.cli.options import Verbs, add_out, add_verb, load_experiment, print_json, run_path
from partition.config import ExperimentConfig
from partition.errors import PartitionError
from partition.plan import Candidate, Search
from partition.record.checkpoint import CheckpointRecord, check_serves, find

if TYPE_CHECKING:
    from partition.runtime import Fleet

SCHEMA_VERSION = 1


def add(verbs: Verbs) -> None:
    """The verbs `evaluate` and `predict`."""
    evaluate = add_verb(verbs, "evaluate", run_evaluate, "loss and accuracy of a checkpoint on the examples held out")
    predict = add_verb(verbs, "predict", run_predict, "the outputs of a checkpoint for given inputs")
    for verb in (evaluate, predict):
        verb.add_argument(
            "--checkpoint",
            default="latest",
            metavar="CHECKPOINT",
            help="`latest` (default) or a number of steps in the run directory, or a path",
        )
        verb.add_argument("--stages", type=int, metavar="N", help="on how many devices, whatever it was trained on")
        verb.add_argument("--strategy", metavar="NAME", help="on the layout of this candidate")
        add_out(verb)
    predict.add_argument(
        "--input",
        type=Path,
        metavar="FILE.npy",
        help="inputs (N, in_features), scaled as the model was trained; default: the examples held out",
    )
    predict.add_argument("--out-file", type=Path, required=True, metavar="FILE.npy", help="where the outputs go")
    predict.add_argument(
        "--classes", action="store_true", help="write the class of the largest output, not all outputs"
    )


def run_evaluate(options: argparse.Namespace) -> int:
    """Loss and accuracy on the examples held out."""
    config = load_experiment(options)
    record = find(options.checkpoint, run_path(options, config))
    check_serves(record, config, on_held_out=True)
    search, candidate = find_layout(
        config, record.facts.candidate, num_stages=options.stages, strategy=options.strategy
    )
    from partition.data.dataset import load
    from partition.runtime.training import evaluate

    dataset = load(config)
    final = evaluate(_restored(search, candidate, record), dataset, config, 0.0)
    document = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint": str(record.path),
        "step": record.step,
        "candidate": candidate.name,
        "num_stages": candidate.num_stages,
        "num_examples": dataset.num_test,
        "test_loss": final.test_loss,
        "test_accuracy": final.test_accuracy,
    }
    if options.json:
        print_json(document)
        return 0
    accuracy = "" if final.test_accuracy is None else f", test accuracy {final.test_accuracy:.2%}"
    print(f"{record.path}, on {candidate.name}:")
    print(f"test loss {final.test_loss:.4f}{accuracy} on {dataset.num_test:,} held-out examples")
    return 0


def run_predict(options: argparse.Namespace) -> int:
    """The outputs, or the classes, of every row."""
    config = load_experiment(options)
    if options.classes and config.model.loss != "cross_entropy":
        raise PartitionError(
            f"--classes: model.loss is {config.model.loss}, whose outputs are no classes; leave it out"
        )
    record = find(options.checkpoint, run_path(options, config))
    check_serves(record, config, on_held_out=options.input is None)
    search, candidate = find_layout(
        config, record.facts.candidate, num_stages=options.stages, strategy=options.strategy
    )
    x_NI = _inputs(options, config)
    fleet = _restored(search, candidate, record)
    _write(options.out_file, _outputs(fleet, x_NI, config), len(x_NI), is_classes=options.classes)
    if options.json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "checkpoint": str(record.path),
                "step": record.step,
                "candidate": candidate.name,
                "num_rows": len(x_NI),
                "file": str(options.out_file),
            }
        )
    else:
        print(f"{'Classes' if options.classes else 'Outputs'} of {len(x_NI):,} rows written to {options.out_file}")
    return 0


def _restored(search: Search, candidate: Candidate, record: CheckpointRecord) -> Fleet:
    from partition.runtime import Fleet, check_devices
    from partition.runtime.checkpoint import held_layers, restore

    check_devices(search, candidate)
    fleet = Fleet(search, candidate)
    restore(record, held_layers(fleet), parameters_only=True)
    return fleet


def _inputs(options: argparse.Namespace, config: ExperimentConfig) -> NDArray[Any]:
    from partition.data.dataset import load

    if options.input is None:
        return load(config).test_x
    path, width = options.input, config.model.in_features
    try:
        x_NI = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise PartitionError(
            f"--input {path}: cannot be read ({error.strerror or error}); give a file of NumPy"
        ) from None
    except (ValueError, EOFError, SyntaxError) as error:
        raise PartitionError(
            f"--input {path}: is no .npy file of numbers ({error}); write it with numpy.save"
        ) from None
    if isinstance(x_NI, np.ndarray) and len(x_NI.shape) == 2 and len(x_NI) == 0:
        raise PartitionError(f"--input {path}: has no rows; give at least one")
    if not isinstance(x_NI, np.ndarray) or x_NI.ndim != 2 or x_NI.shape[1] != width or x_NI.dtype.kind not in "fiub":
        found = f"{x_NI.shape} of {x_NI.dtype}" if isinstance(x_NI, np.ndarray) else "an archive"
        raise PartitionError(f"--input {path}: is {found}, expected (N, {width}) real numbers; change the file")
    return x_NI


def _outputs(fleet: Fleet, x_NI: NDArray[Any], config: ExperimentConfig) -> Iterator[NDArray[Any]]:
    """Microbatch by microbatch, so that inputs and outputs larger than memory pass through."""
    from partition.data.dataset import compute_dtype

    size = fleet.candidate.microbatch_size
    for start in range(0, len(x_NI), size):
        yield from fleet.predict(np.ascontiguousarray(x_NI[start : start + size], dtype=compute_dtype(config)))


def _write(path: Path, outputs: Iterator[NDArray[Any]], num_rows: int, *, is_classes: bool) -> None:
    """A .npy file under a temporary name, renamed once it is complete."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for index, output_BO in enumerate(outputs):
                rows = output_BO.argmax(axis=1) if is_classes else output_BO
                if index == 0:
                    header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (num_rows, *rows.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(rows.tobytes())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise PartitionError(f"--out-file {path}: cannot be written ({error.strerror}); choose another place") from None
