"""Shapes: O features out, I features in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from partition.config import ModelConfig
from partition.graph import build_network
from partition.graph.layers import Layer
from partition.ops.dropout import MaskKey, bfloat16_bits, drop
from partition.ops.mixed import add_product, cast_weights, to_numpy, weights_in


def layer(*, bias: bool) -> Layer:
    model = {"in_features": 5, "hidden_features": (), "out_features": 3, "bias": bias}
    (found,) = build_network(ModelConfig.model_validate(model)).layers
    assert isinstance(found, Layer)
    return found


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_rounded_once_and_the_bias_stands_behind(bias: bool) -> None:
    of, weight_OI = layer(bias=bias), torch.randn(3, 5)
    bias_O = torch.randn(3) if bias else None
    flat = torch.full((of.parameter_elements,), float("nan"), dtype=torch.bfloat16)
    cast_weights(weight_OI, bias_O, flat, of)
    found_OI, found_O = weights_in(flat, of)
    assert torch.equal(found_OI, weight_OI.bfloat16())
    assert (found_O is None) is (bias_O is None)
    assert found_O is None or bias_O is None or torch.equal(found_O, bias_O.bfloat16())


def test_a_buffer_for_the_weight_alone_leaves_the_bias_out() -> None:
    of, weight_OI = layer(bias=True), torch.randn(3, 5)
    flat = torch.empty(15, dtype=torch.bfloat16)
    cast_weights(weight_OI, torch.randn(3), flat, of)
    assert torch.equal(flat.view(3, 5), weight_OI.bfloat16())
    assert weights_in(flat, of)[1] is None


@pytest.mark.parametrize("piece", [1, 4, 15, 100])
def test_products_are_added_in_float32_whatever_the_pieces(piece: int) -> None:
    gradient_OI = torch.full((3, 5), float("nan"))
    products = [torch.randn(3, 5).bfloat16() * 10.0**-scale for scale in range(4)]
    for index, product_OI in enumerate(products):
        add_product(product_OI, gradient_OI, index == 0, torch.empty(piece))
    expected_OI = products[0].float()
    for product_OI in products[1:]:
        expected_OI = expected_OI + product_OI.float()
    assert torch.equal(gradient_OI, expected_OI)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_the_same_as_in_float32(rate: float) -> None:
    key, x_BD = MaskKey(seed=3, step=7, dropout=2, first_example=0), torch.rand(40, 30) + 0.5
    wide_BD, narrow_BD = torch.empty_like(x_BD), torch.empty_like(x_BD, dtype=torch.bfloat16)
    drop(x_BD, rate, key, wide_BD, torch.empty(7 * 30))
    drop(x_BD.bfloat16(), rate, key, narrow_BD, torch.empty(7 * 30, dtype=torch.bfloat16))
    assert torch.equal(wide_BD == 0, narrow_BD == 0)
    assert torch.allclose(wide_BD, narrow_BD.float(), rtol=0.01)


def test_bits_are_those_of_torch() -> None:
    numbers = [1.0, 1.1111112, 2.0, 1.00390625, 1.01171875, 65536.0, 3.0e-5, *(1 + np.random.default_rng(0).random(99))]
    expected = torch.tensor(numbers, dtype=torch.float32).bfloat16().view(torch.int16).tolist()
    assert [bfloat16_bits(number) for number in numbers] == expected


def test_numpy_gets_a_copy_in_a_format_that_it_has() -> None:
    for tensor in (torch.randn(3, 4), torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4).bfloat16()):
        found = to_numpy(tensor.cpu())
        assert found.dtype == (np.float64 if tensor.dtype is torch.float64 else np.float32)
        assert np.array_equal(found, tensor.to(torch.float64).cpu().numpy())
        before = found.copy()
        tensor.zero_()
        assert np.array_equal(found, before)
