"""What each loss reads, keeps and needs as workspace; `partition.ops` has what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


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
        )
    }
)
