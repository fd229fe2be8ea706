"""Sums over rows that allocate nothing, whatever the number of rows and threads.

Shapes: B rows, O columns.

`torch.sum` of 32768 elements or more to a single number takes a buffer of one number per thread. Sums are therefore
computed over at most 32767 rows at once: more rows are summed in pieces, in order, and a single column then gives the
same bits on any number of threads. On a GPU it takes a buffer for many rows in any case, so that sums over rows are
products with a vector of ones there, which is made once for each device.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from partition.costs.allocator import NUM_ONES

ROWS_PER_SUM = 32767
"""Rows that one call of `torch.sum` covers."""


def sum_rows(x_BO: Tensor, is_first: bool, sum_O: Tensor, workspace_O: Tensor) -> None:
    """sum_O = sum over rows of x where is_first, sum_O += that sum otherwise: (B, O) -> (O,), in place.

    `workspace_O` is overwritten; it is not touched before the first piece has been read where is_first, so that it may
    be the first row of x.

    Example: `sum_rows(x_BO, True, torch.empty(O), torch.empty(O))`.
    """
    if x_BO.is_cuda:
        _add_up_by_products(x_BO, is_first, sum_O)
        return
    for rows_BO in torch.split(x_BO, ROWS_PER_SUM):
        if is_first:
            torch.sum(rows_BO, 0, out=sum_O)
            is_first = False
        else:
            torch.sum(rows_BO, 0, out=workspace_O)
            sum_O.add_(workspace_O)


def _add_up_by_products(x_BO: Tensor, is_first: bool, sum_O: Tensor) -> None:
    ones_N = ones(x_BO.dtype, x_BO.device)
    for rows_BO in torch.split(x_BO, NUM_ONES):
        # With beta = 0 the old sum is not read.
        torch.addmv(sum_O, rows_BO.t(), ones_N[: len(rows_BO)], beta=0.0 if is_first else 1.0, out=sum_O)
        is_first = False


@cache
def ones(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The vector of ones of a device, made when it is first asked for, and kept."""
    return torch.ones(NUM_ONES, dtype=dtype, device=device)


def sum_columns(x_BO: Tensor, sum_B: Tensor, workspace_B: Tensor) -> None:
    """sum_B = sum of every row: (B, O) -> (B,); `workspace_B` is overwritten where there are many columns.

    Example: `sum_columns(x_BO, torch.empty(B), torch.empty(B))`.
    """
    first_BO, *others = torch.split(x_BO, ROWS_PER_SUM, dim=1)
    torch.sum(first_BO, 1, out=sum_B)
    for columns_BO in others:
        torch.sum(columns_BO, 1, out=workspace_B)
        sum_B.add_(workspace_B)
