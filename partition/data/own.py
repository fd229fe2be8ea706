"""The user's own examples, whatever holds them: what is there for training and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from partition.config import DataConfig, ExperimentConfig
from partition.data.idx import Pair, outline_idx
from partition.data.items import outline_items
from partition.data.npy import outline_npy
from partition.data.npz import outline_npz
from partition.data.outline import Outline
from partition.data.refusal import DataError
from partition.data.table import outline_csv

TargetKind = Literal["classes", "one_hot", "values"]

_OUTLINES: dict[str, Callable[[DataConfig], tuple[Pair, Pair | None]]] = {
    "idx": outline_idx,
    "npy": outline_npy,
    "npz": outline_npz,
    "csv": outline_csv,
    "torch": outline_items,
}

OWN_SOURCES = tuple(_OUTLINES)


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """Outlines of the user's arrays; `held_out` is None where a part of `train` is to be held out."""

    train: Pair
    held_out: Pair | None


def outline_own(config: ExperimentConfig) -> OwnData:
    """What the experiment's own data is, by headers, lengths and counted lines; no values are read.

    Raises DataError, AbsentDataError: with the key to change.
    """
    train, held_out = _OUTLINES[config.data.source](config.data)
    for pair in filter(None, (train, held_out)):
        _check_pair(pair)
    if held_out is None and train.features.num_rows < 2:
        raise train.features.refuse("has one example, and one is to be held out; add examples or name a test file")
    if held_out is not None:
        _check_alike(train, held_out)
    return OwnData(train=train, held_out=held_out)


def _check_pair(pair: Pair) -> None:
    features, targets = pair
    if features.num_rows != targets.num_rows:
        raise targets.refuse(
            f"has {targets.num_rows} examples, and {features.name} has {features.num_rows}; name files that belong "
            "together"
        )


def _check_alike(train: Pair, held_out: Pair) -> None:
    for part, other in zip(train, held_out, strict=True):
        if part.width != other.width:
            raise other.refuse(
                f"has {other.width} values an example, and {part.name} has {part.width}; name files that belong "
                "together"
            )


def target_kind(config: ExperimentConfig, targets: Outline) -> TargetKind:
    """How targets are read: class indices, the same as one-hot rows, or real values.

    Raises DataError where the targets cannot be learned with this loss and output.
    """
    model = config.model
    if model.has_class_targets:
        if targets.width != 1:
            raise targets.refuse(
                f"has {targets.width} values an example, and model.loss {model.loss} takes one class index; "
                "give indices, or set model.loss: mse"
            )
        return "classes"
    is_class = config.data.source == "idx" or (targets.is_whole and targets.width == 1 and model.out_features > 1)
    if is_class and targets.width == 1:
        return "one_hot"
    if targets.width != model.out_features:
        raise DataError(
            "model.out_features",
            f"is {model.out_features}, but {targets.name} has {targets.width} values an example; "
            f"set model.out_features to {targets.width}",
        )
    return "values"
