"""What each loss reads, keeps and needs as workspace; `partition.ops` has what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from partition.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class LossRecord:
    """The planner's side of a loss L = (1/N) sum over examples of l(o_n, y_n)."""

    name: str
    has_class_targets: bool
    """True: one class index (int64) per example. False: one value per example and output."""
    is_in_place: bool
    """True: the gradient dL/do overwrites the outputs. False: it has a buffer of its own, and o is given back."""
    workspace_columns: int
    """Columns of a workspace with one row per example, alive only while the loss is computed; 0 for none."""
    flop: int
    """Floating-point operations per output of value and gradient together; a transcendental counts as 10."""
    second_flop: int
    """Floating-point operations per output of the Hessian in the outputs times a direction."""
    has_second_workspace: bool
    """True: that takes a workspace of the outputs' shape, and one of `workspace_columns`. False: it takes none."""
    label_smoothing: float = 0.0
    """The part of every target's probability that is spread evenly over all classes."""
    class_weights: tuple[float, ...] | None = None
    """A weight for every class; an example counts as much as its class, and so do the examples together."""
    delta: float = 1.0
    """Huber: the error beyond which it is linear."""

    is_imported: bool = False
    """A function of the user's: `name` is where it is imported from, and automatic differentiation computes it."""

    @property
    def has_class_vector(self) -> bool:
        """Whether the loss reads a number for every class: its weight, or 1 where labels are smoothed alone."""
        return self.class_weights is not None or self.label_smoothing > 0


COLUMNS_PER_OUTPUT = 8
"""Numbers per example and output that automatic differentiation of a loss is taken to hold."""

LOSS_RECORDS: Mapping[str, LossRecord] = MappingProxyType(
    {
        record.name: record
        for record in (
            LossRecord(
                name="cross_entropy",
                has_class_targets=True,
                is_in_place=False,
                workspace_columns=1,
                flop=25,
                second_flop=18,
                has_second_workspace=True,
            ),
            LossRecord(
                name="mse",
                has_class_targets=False,
                is_in_place=True,
                workspace_columns=1,
                flop=4,
                second_flop=1,
                has_second_workspace=False,
            ),
            LossRecord(
                name="huber",
                has_class_targets=False,
                is_in_place=False,
                workspace_columns=1,
                flop=12,
                second_flop=4,
                has_second_workspace=True,
            ),
            LossRecord(
                name="binary_cross_entropy",
                has_class_targets=False,
                is_in_place=False,
                workspace_columns=2,
                flop=42,
                second_flop=14,
                has_second_workspace=True,
            ),
        )
    }
)


def build_loss(model: ModelConfig) -> LossRecord:
    """The loss of a model section with its options."""
    if model.is_loss_imported:
        return LossRecord(
            name=model.loss,
            has_class_targets=model.has_class_targets,
            is_in_place=False,
            workspace_columns=model.loss_columns or COLUMNS_PER_OUTPUT * model.out_features,
            flop=100,
            second_flop=200,
            has_second_workspace=False,
            is_imported=True,
        )
    record = LOSS_RECORDS[model.loss]
    if model.loss == "huber":
        return replace(record, delta=model.huber_delta)
    if model.loss != "cross_entropy" or not (model.label_smoothing or model.class_weights):
        return record
    return replace(
        record,
        # A coefficient and a part of the value for each example, and passes over the class vector.
        workspace_columns=2,
        flop=record.flop + 6,
        label_smoothing=model.label_smoothing,
        class_weights=model.class_weights,
    )
