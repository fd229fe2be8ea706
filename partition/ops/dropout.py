"""Dropout whose mask is a function of where it stands: nothing is kept, and no split, order or device changes it.

Shapes: B examples, D features, contiguous.

    out = x ⊙ keep / (1 - rate)        for values in the forward, and for gradients in the backward

Whether feature d of example n of a minibatch is kept in a step follows from 16 bits of a counter-based generator
(Philox, Salmon et al. 2011): its key is (seed, step), its counter (dropout, n, d / 16). A rate is met to 1/65536; the
scale is one over the probability that is really used. Masks are drawn on the host, a piece at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Philox
from numpy.typing import NDArray
from torch import Tensor

LEVELS = 2**16
PER_COUNT = 16
"""Numbers of 16 bits that the generator gives for one value of its counter."""


class MaskKey(NamedTuple):
    """Where a mask stands."""

    seed: int
    step: int
    dropout: int
    """Which dropout of the network."""
    first_example: int
    """Of the rows, within the minibatch."""


def draw_mask(key: MaskKey, num_rows: int, num_features: int, rate: float) -> NDArray[np.bool_]:
    """Which numbers are kept: (B, D) for the examples from `key.first_example` on.

    Example: `draw_mask(MaskKey(0, 1, 0, 0), 2, 3, 0.5)`.
    """
    counts = -(-num_features // PER_COUNT)
    counter = key.first_example * counts + (key.dropout << 128)
    words = Philox(counter=counter, key=key.seed + (key.step << 64)).random_raw(num_rows * counts * 4)
    numbers = words.astype("<u8", copy=False).view("<u2").reshape(num_rows, counts * PER_COUNT)
    kept: NDArray[np.bool_] = numbers[:, :num_features] >= threshold(rate)
    return kept


def bfloat16_bits(number: float) -> int:
    """The bits of a positive number in bfloat16, rounded to the nearest one and to an even last bit where two are."""
    bits = int(np.float32(number).view(np.uint32))
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def threshold(rate: float) -> int:
    """Of the 65536 levels those that drop."""
    return min(round(rate * LEVELS), LEVELS - 1)


def fill_mask(mask_BD: NDArray[np.bool_], scale: float, out_BD: Tensor) -> None:
    """What a number is multiplied by: the scale where it is kept, 0 where it is dropped; into a tensor on the host.

    Example: `fill_mask(draw_mask(key, 2, 3, 0.5), 2.0, torch.empty(2, 3))`.
    """
    if out_BD.dtype is torch.bfloat16:
        # NumPy has no bfloat16: the scale's bits where a number is kept, those of 0 where it is dropped.
        np.multiply(mask_BD, np.int16(bfloat16_bits(scale)), out=out_BD.view(torch.int16).numpy())
    else:
        out = out_BD.numpy()
        np.multiply(mask_BD, out.dtype.type(scale), out=out)


def drop(x_BD: Tensor, rate: float, key: MaskKey, out_BD: Tensor, workspace: Tensor) -> None:
    """Out = x ⊙ keep / (1 - rate); `out_BD` may be `x_BD` itself. The workspace holds one row at least.

    Example: `drop(x_BD, 0.1, MaskKey(0, 1, 0, 0), x_BD, torch.empty(D))`.
    """
    num_rows, num_features = x_BD.shape
    scale = LEVELS / (LEVELS - threshold(rate))
    most = workspace.numel() // num_features
    for start in range(0, num_rows, most):
        count = min(most, num_rows - start)
        mask = draw_mask(key._replace(first_example=key.first_example + start), count, num_features, rate)
        piece_BD = workspace[: count * num_features].view(count, num_features)
        on_host_BD = piece_BD if piece_BD.device.type == "cpu" else torch.empty_like(piece_BD, device="cpu")
        fill_mask(mask, scale, on_host_BD)
        if on_host_BD is not piece_BD:
            piece_BD.copy_(on_host_BD)  # of its own format: nothing is converted, nor allocated for that, on the device
        torch.mul(x_BD[start : start + count], piece_BD, out=out_BD[start : start + count])
