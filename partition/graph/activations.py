"""What each activation keeps between forward and backward, and what it costs; `partition.ops` has what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Keeps(StrEnum):
    """What phi' is computed from in the backward."""

    NOTHING = "nothing"
    OUTPUT = "output"
    """phi'(z) follows from h, so h overwrites z."""
    PRE_ACTIVATION = "pre_activation"
    """z is kept, and phi(z) is recomputed when the weight gradient of the next layer needs it."""


@dataclass(frozen=True, kw_only=True)
class ActivationRecord:
    """The planner's side of an elementwise activation h = phi(z)."""

    name: str
    keeps: Keeps
    forward_flop: int
    """Floating-point operations per element of h = phi(z); a transcendental counts as 10."""
    backward_flop: int
    """Floating-point operations per element of grad_z = grad_h * phi'(z)."""
    second_flop: int
    """Floating-point operations per element of grad_h * tangent * phi'', added to a sum; 0 where phi'' is 0."""
    second_workspaces: int
    """Buffers of z's shape that this takes while it runs."""
    gain: float
    """Factor of the initial weights' standard deviation gain / sqrt(fan_in) (He et al. 2015; LeCun et al. 1998)."""
    has_workspace: bool = False
    """True: no kernel multiplies by phi' at once, so that phi' needs a buffer of z's shape while it does."""

    @property
    def is_identity(self) -> bool:
        """An identity needs no operator at all."""
        return self.name == "identity"


_SQRT2 = 2.0**0.5

ACTIVATION_RECORDS: Mapping[str, ActivationRecord] = MappingProxyType(
    {
        record.name: record
        for record in (
            ActivationRecord(
                name="identity",
                keeps=Keeps.NOTHING,
                forward_flop=0,
                backward_flop=0,
                second_flop=0,
                second_workspaces=0,
                gain=1.0,
            ),
            ActivationRecord(
                name="relu",
                keeps=Keeps.OUTPUT,
                forward_flop=1,
                backward_flop=1,
                second_flop=0,
                second_workspaces=0,
                gain=_SQRT2,
            ),
            ActivationRecord(
                name="tanh",
                keeps=Keeps.OUTPUT,
                forward_flop=10,
                backward_flop=3,
                second_flop=4,
                second_workspaces=1,
                gain=5.0 / 3.0,
            ),
            ActivationRecord(
                name="sigmoid",
                keeps=Keeps.OUTPUT,
                forward_flop=12,
                backward_flop=3,
                second_flop=5,
                second_workspaces=1,
                gain=1.0,
            ),
            ActivationRecord(
                name="gelu",
                keeps=Keeps.PRE_ACTIVATION,
                forward_flop=14,
                backward_flop=28,
                second_flop=20,
                second_workspaces=1,
                gain=_SQRT2,
            ),
            ActivationRecord(
                name="gelu_tanh",
                keeps=Keeps.PRE_ACTIVATION,
                forward_flop=18,
                backward_flop=26,
                second_flop=33,
                second_workspaces=2,
                gain=_SQRT2,
            ),
            ActivationRecord(
                name="silu",
                keeps=Keeps.PRE_ACTIVATION,
                forward_flop=13,
                backward_flop=17,
                second_flop=23,
                second_workspaces=2,
                gain=_SQRT2,
            ),
            # Gains below: 1 / sqrt(E[phi(z)²]) for normal z, sqrt(2 / (1 + slope²)) for leaky_relu.
            ActivationRecord(
                name="leaky_relu",
                keeps=Keeps.OUTPUT,
                forward_flop=2,
                backward_flop=2,
                second_flop=0,
                second_workspaces=0,
                gain=1.41414,
            ),
            ActivationRecord(
                name="elu",
                keeps=Keeps.OUTPUT,
                forward_flop=12,
                backward_flop=3,
                second_flop=4,
                second_workspaces=2,
                gain=1.245,
            ),
            ActivationRecord(
                name="softplus",
                keeps=Keeps.PRE_ACTIVATION,
                forward_flop=21,
                backward_flop=12,
                second_flop=14,
                second_workspaces=2,
                gain=1.0,
            ),
            ActivationRecord(
                name="sin",
                keeps=Keeps.PRE_ACTIVATION,
                forward_flop=10,
                backward_flop=11,
                second_flop=13,
                second_workspaces=1,
                gain=1.521,
                has_workspace=True,
            ),
        )
    }
)
