"""Weights piece by piece: what has to be computed from a weight and not kept never needs a buffer of its size."""

from __future__ import annotations

from collections.abc import Iterable

from partition.graph.layers import Layer

PIECE_ELEMENTS = 2**17
"""A piece of a weight has at most so many elements, or is one row: small enough for a core's own cache."""


def piece_rows(layer: Layer) -> int:
    """Rows of weight_OI in one piece."""
    return min(layer.out_features, max(1, PIECE_ELEMENTS // layer.in_features))


def piece_elements(layers: Iterable[Layer]) -> int:
    """Elements of a buffer for any piece of the layers' weights."""
    return max((piece_rows(layer) * layer.in_features for layer in layers), default=0)
