"""Shapes: B examples, D features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from partition.ops.dropout import MaskKey, draw_mask, drop, fill_mask

KEY = MaskKey(seed=3, step=7, dropout=2, first_example=0)


@pytest.mark.parametrize("D", [1, 16, 17, 100])
@pytest.mark.parametrize("first", [1, 5, 19])
def test_a_mask_depends_on_the_example_not_on_the_microbatch(D, first):
    whole = draw_mask(KEY, 20, D, 0.4)
    assert np.array_equal(draw_mask(KEY._replace(first_example=first), 20 - first, D, 0.4), whole[first:])


@pytest.mark.parametrize("change", [{"seed": 4}, {"step": 8}, {"dropout": 3}, {"first_example": 40}])
def test_another_seed_step_dropout_or_example_has_another_mask(change):
    """As independent as coins: half of the numbers are dropped in one and not in the other, give or take."""
    one, other = draw_mask(KEY, 40, 100, 0.5), draw_mask(KEY._replace(**change), 40, 100, 0.5)
    assert abs((one != other).mean() - 0.5) < 0.04  # five standard deviations of 4,000 coins


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_met_and_the_mean_is_kept(rate):
    x_BD = torch.ones(400, 500, dtype=torch.float64)
    out_BD = torch.empty_like(x_BD)
    drop(x_BD, rate, KEY, out_BD, torch.empty(7 * 500, dtype=torch.float64))
    deviation = (rate * (1 - rate) / x_BD.numel()) ** 0.5
    assert abs((out_BD == 0).double().mean().item() - rate) < 5 * deviation
    assert abs(out_BD.mean().item() - 1) < 5 * deviation / (1 - rate)


def test_rows_and_columns_are_dropped_alike():
    kept = draw_mask(KEY, 300, 300, 0.3)
    for axis in (0, 1):
        assert abs(kept.mean(axis) - 0.7).max() < 5.5 * (0.21 / 300) ** 0.5


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_neither_the_workspace_nor_in_place_changes_a_bit(pieces):
    x_BD, out_BD = torch.randn(50, 13), torch.empty(50, 13)
    drop(x_BD, 0.3, KEY, out_BD, torch.empty(50 * 13))
    drop(x_BD, 0.3, KEY, x_BD, torch.empty(pieces * 13))
    assert torch.equal(x_BD, out_BD)


def test_rate_zero_drops_nothing():
    x_BD = torch.randn(5, 9)
    before_BD = x_BD.clone()
    drop(x_BD, 0.0, KEY, x_BD, torch.empty(9))
    assert torch.equal(x_BD, before_BD)


def test_largest_seed_and_step_can_be_used():
    assert draw_mask(MaskKey(2**40 - 1, 10**9, 10**5, 2**30), 2, 5, 0.5).shape == (2, 5)


@pytest.mark.parametrize(
    ("key", "rate", "expected"),
    [
        (KEY, 0.4, "46ab6d97a496e9ffee231750eaae"),
        (MaskKey(0, 1, 0, 5), 0.1, "dffff7fffffffedaaffdfffffdc6"),
        (MaskKey(2**40 - 1, 10**9, 10**5, 2**30), 0.5, "4a7b1a462e7d6b418e25777b954a"),
    ],
)
def test_the_bits_of_a_mask_stay_what_they_are(key: MaskKey, rate: float, expected: str) -> None:
    """A run that is resumed drops what it would have dropped: three examples of 37 features, written down once."""
    assert np.packbits(draw_mask(key, 3, 37, rate)).tobytes().hex() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_mask_is_made_in_the_format_of_what_it_is_for(dtype: torch.dtype) -> None:
    """So that a device that it is copied to gets the bits that a CPU multiplies by."""
    mask, scale = draw_mask(KEY, 6, 11, 0.3), 1 / 0.7
    out_BD = torch.empty(6, 11, dtype=dtype, device="cpu")
    fill_mask(mask, scale, out_BD)
    kept = torch.tensor(scale, dtype=torch.float64, device="cpu")
    expected = torch.where(torch.from_numpy(mask), kept, 0.0).to(dtype)
    assert torch.equal(out_BD, expected)
    ones_BD = torch.ones(6, 11, dtype=dtype)
    assert torch.equal(ones_BD * out_BD.to(ones_BD.device), expected.to(ones_BD.device))
