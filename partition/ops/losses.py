"""All losses L = weight * sum over examples of l(o, y) by name, with their options.

Shapes: B examples of a microbatch, q outputs. `weight` is 1/N for a minibatch of N examples, whatever B is: the losses
and gradients of the microbatches of a minibatch then add up to those of the whole minibatch.

Value and gradient are computed together, since dJ/dL = 1 always.
Source: *Dive into Deep Learning*, dJ/do = dL/do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from partition.graph import LossRecord
from partition.ops import cross_entropy as classes
from partition.ops import elementwise_losses as elementwise
from partition.ops.imported_loss import imported_loss, summed
from partition.ops.loss_protocols import Loss

LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            Loss(
                name="cross_entropy",
                forward=classes.cross_entropy,
                hessian=classes.cross_entropy_hessian,
                tangent=classes.cross_entropy_tangent,
            ),
            Loss(
                name="mse",
                forward=elementwise.mean_squared_error,
                hessian=elementwise.mean_squared_error_hessian,
                tangent=elementwise.mean_squared_error_tangent,
            ),
            Loss(
                name="huber",
                forward=elementwise.huber,
                hessian=elementwise.huber_hessian,
                tangent=elementwise.huber_tangent,
            ),
            Loss(
                name="binary_cross_entropy",
                forward=elementwise.binary_cross_entropy,
                hessian=elementwise.binary_cross_entropy_hessian,
                tangent=elementwise.binary_cross_entropy_tangent,
            ),
        )
    }
)


def bind_loss(record: LossRecord, class_vector_q: Tensor | None) -> Loss:
    """A loss with its options; `class_vector_q` holds the numbers of `class_vector`, if there are any."""
    if record.is_imported:
        return imported_loss(record.name)
    if record.name == "huber":
        return _with_options(
            record.name, elementwise.huber, elementwise.huber_hessian, elementwise.huber_tangent, delta=record.delta
        )
    if class_vector_q is not None:
        return _with_options(
            record.name,
            classes.weighted_cross_entropy,
            classes.weighted_cross_entropy_hessian,
            classes.weighted_cross_entropy_tangent,
            class_weights_q=class_vector_q,
            sum_of_weights=sum(class_vector(record, len(class_vector_q)) or ()),
            label_smoothing=record.label_smoothing,
        )
    return LOSSES[record.name]


def _with_options(
    name: str,
    forward: Callable[..., None],
    hessian: Callable[..., Tensor],
    tangent: Callable[..., None],
    **options: Any,
) -> Loss:
    return Loss(
        name=name,
        forward=partial(forward, **options),
        hessian=partial(hessian, **options),
        tangent=partial(tangent, **options),
    )


def class_vector(record: LossRecord, num_outputs: int) -> tuple[float, ...] | None:
    """The numbers that a loss reads for its classes; None where it reads none."""
    if not record.has_class_vector:
        return None
    return record.class_weights or (1.0,) * num_outputs


_PLAIN: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "mse": functional.mse_loss,
        "huber": functional.huber_loss,
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    }
)


def summed_loss(record: LossRecord, o_Bq: Tensor, targets: Tensor) -> Tensor:
    """The sum over examples of a loss by torch's own function, for automatic differentiation and for evaluation.

    Divided by `summed_weight` of the same examples it is their mean.
    """
    if record.is_imported:
        return summed(record.name, o_Bq, targets)
    if record.name == "cross_entropy":
        weights = None if record.class_weights is None else o_Bq.new_tensor(record.class_weights)
        return functional.cross_entropy(o_Bq, targets, weights, reduction="sum", label_smoothing=record.label_smoothing)
    options = {"delta": record.delta} if record.name == "huber" else {}
    return _PLAIN[record.name](o_Bq, targets, reduction="sum", **options) / o_Bq.shape[1]


def summed_weight(record: LossRecord, targets: NDArray[Any]) -> float:
    """What a minibatch's examples count together: their number, or the sum of the weights of their classes."""
    if record.class_weights is None:
        return float(len(targets))
    return float(np.asarray(record.class_weights, dtype=np.float64)[targets].sum())
