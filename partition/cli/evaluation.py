"""`partition evaluate` and `partition predict`: what a checkpoint's parameters are worth, and what they say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from partition.cli.layout import find_layout
from partition.cli.options import Verbs, add_out, add_verb, load_experiment, print_json, run_path
from partition.errors import PartitionError
from partition.plan import Candidate, Search
from partition.record.checkpoint import CheckpointRecord, check_serves, find

if TYPE_CHECKING:
    from partition.data.rows import Examples
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
    from partition.runtime.evaluation import evaluate

    dataset = load(config)
    final = evaluate(_restored(search, candidate, record), dataset, 0.0)
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
    if options.classes and not config.model.has_class_targets:
        raise PartitionError(
            f"--classes: model.loss is {config.model.loss}, whose outputs are no classes; leave it out"
        )
    record = find(options.checkpoint, run_path(options, config))
    check_serves(record, config, on_held_out=options.input is None)
    search, candidate = find_layout(
        config, record.facts.candidate, num_stages=options.stages, strategy=options.strategy
    )
    from partition.cli.arrays import outputs, read_inputs, write_rows
    from partition.data.dataset import load

    x_NI: Examples = (
        load(config).test_x if options.input is None else read_inputs(options.input, config.model.in_features)
    )
    fleet = _restored(search, candidate, record)
    write_rows(options.out_file, outputs(fleet, x_NI), len(x_NI), is_classes=options.classes)
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
