"""What `partition curvature` finds, predicted beside measured."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ProductCost:
    """What a Hessian-vector product takes, and a gradient on the same microbatches."""

    gradient_flop: int
    """Forward and backward of one minibatch, by the cost model."""
    product_flop: int
    flop_ratio: float
    predicted_s: float
    """Of one minibatch on these devices."""
    measured_s: float
    """Of one minibatch, the median over products."""
    clock: str
    """Whose seconds the measured ones are: wall or simulated."""
    predicted_peak_bytes: tuple[int, ...]
    """By rank."""
    measured_peak_bytes: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class CurvatureRecord:
    """The largest eigenvalue of the Hessian of J, how sure it is, and where it was computed."""

    schema_version: int
    eigenvalue: float
    """The largest eigenvalue is at least this."""
    residual: float
    """Some eigenvalue is no further away than this."""
    tolerance: float
    """Of the residual, relative to the eigenvalue."""
    is_converged: bool
    num_products: int
    most_negative: float | None
    """The eigenvalue of largest magnitude, where that is negative."""
    num_examples: int
    num_minibatches: int
    checkpoint: str | None
    """None for the initial parameters."""
    step: int
    candidate: str
    num_stages: int
    product: ProductCost
