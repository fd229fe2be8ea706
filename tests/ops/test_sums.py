"""Shapes: B rows, O columns."""

from __future__ import annotations

import pytest
import torch

from partition.ops.sums import ROWS_PER_SUM, sum_rows


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("B", [1, ROWS_PER_SUM, ROWS_PER_SUM + 1, 2 * ROWS_PER_SUM + 5])
def test_sum_of_few_and_many_rows(B, is_first, assert_equal_in_norm):
    x_BO, sum_O = torch.randn(B, 2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    expected_O = x_BO.sum(0) + (0.0 if is_first else sum_O)
    sum_rows(x_BO, is_first, sum_O, torch.full_like(sum_O, torch.nan))
    assert_equal_in_norm(sum_O, expected_O)


def test_first_row_may_be_the_workspace(assert_equal_in_norm):
    x_BO, sum_O = torch.randn(2 * ROWS_PER_SUM + 5, 2, dtype=torch.float64), torch.empty(2, dtype=torch.float64)
    expected_O = x_BO.sum(0)
    sum_rows(x_BO, True, sum_O, x_BO[0])
    assert_equal_in_norm(sum_O, expected_O)


def test_sum_of_one_column_does_not_depend_on_threads(num_threads):
    x_B1, sum_1 = torch.linspace(-1, 2, 2 * ROWS_PER_SUM).view(-1, 1), torch.empty(1)
    sum_rows(x_B1, True, sum_1, torch.empty(1))
    assert num_threads == torch.get_num_threads()
    torch.set_num_threads(1)
    expected_1 = x_B1[:ROWS_PER_SUM].sum(0) + x_B1[ROWS_PER_SUM:].sum(0)
    assert torch.equal(sum_1, expected_1)
