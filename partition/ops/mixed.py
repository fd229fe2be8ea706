"""What passes between bfloat16, in which products are made, and the float32 of parameters and sums.

Shapes: O features out, I features in. Nothing here allocates: torch adds numbers of two formats on the CPU by way of a
copy of the whole operand, so that gradients are added a piece at a time through a workspace of the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partition.graph import Layer


def weights_in(flat: Tensor, layer: Layer) -> tuple[Tensor, Tensor | None]:
    """Weight and bias as views of one buffer, the bias behind the weight where there is room for it.

    (O * I,) or (O * I + O,) -> (O, I), (O,) or None.
    """
    weight_OI = flat[: layer.weight_elements].view(layer.out_features, layer.in_features)
    bias_O = flat[layer.weight_elements :]
    return weight_OI, bias_O if len(bias_O) else None


def cast_weights(weight_OI: Tensor, bias_O: Tensor | None, flat: Tensor, layer: Layer) -> None:
    """Write weight and bias into a buffer of another format, the bias where there is room: (O, I), (O,) -> flat."""
    into_OI, into_O = weights_in(flat, layer)
    into_OI.copy_(weight_OI)
    if into_O is not None and bias_O is not None:
        into_O.copy_(bias_O)


def add_product(product: Tensor, gradient: Tensor, is_first: bool, piece: Tensor) -> None:
    """Gradient = product for the first microbatch of a step, gradient += product afterwards.

    All of one shape, the product in a narrower format; `piece`, of any size, is overwritten. The sum is made in the
    gradient's format.

    Example: `add_product(product_OI, grad_weight_OI, False, torch.empty(1024))`.
    """
    if is_first:
        gradient.copy_(product)
        return
    if gradient.is_cuda:  # where kernels read both formats, and there is no copy to be kept small
        gradient.add_(product)
        return
    flat, sums = product.view(-1), gradient.view(-1)
    for start in range(0, len(flat), len(piece)):
        part = flat[start : start + len(piece)]
        sums[start : start + len(piece)].add_(piece[: len(part)].copy_(part))


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A copy of a tensor on the host; NumPy has no bfloat16, of which float32 holds every value."""
    if tensor.dtype is torch.bfloat16:
        bits = tensor.view(torch.int16).numpy().view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32)
    return tensor.numpy().copy()
