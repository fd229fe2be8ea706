"""Variables and their tangents through norms and gates, on buffers that the caller gives; pairs as in `ops.pairs`.

Shapes: B examples, D features of a norm, H columns of a gate; a pair has 2B rows. Activations have the tangent below,
gradients above. V and Vb are the directions of weight and bias.

A norm, with x̂ = (x - mean) r or x r, m = x̂·Rx / D, c = grad_n ⊙ weight, d = c·x̂ / D and mean(c) = 0 where no mean was
subtracted:

    Rx̂ = r (Rx - mean(Rx) - x̂ m)                       Rr = -r² m
    Rn = Rx̂ ⊙ weight + x̂ ⊙ V + Vb
    H V += sums over examples of Rgrad_n ⊙ x̂ + grad_n ⊙ Rx̂, and of Rgrad_n
    grad_x = r (c - mean(c) - x̂ d)
    Rgrad_x = r (Rc - mean(Rc) - Rx̂ d - x̂ e - r m (grad_x / r)),  Rc = Rgrad_n ⊙ weight + grad_n ⊙ V,
                                                        e = (Rc·x̂ + c·Rx̂) / D

A gate, with s = silu(a) and Rs = silu'(a) ⊙ Ra:

    Rh = Rs ⊙ b + s ⊙ Rb
    Rgrad_b = Rgrad_h ⊙ s + grad_h ⊙ Rs
    Rgrad_a = (Rgrad_h ⊙ b + grad_h ⊙ Rb) ⊙ silu'(a) + grad_h ⊙ b ⊙ silu''(a) ⊙ Ra

Nothing here allocates. Source: Pearlmutter 1994, *Fast exact multiplication by the Hessian*.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from partition.ops import second
from partition.ops.normalisation import rescale, standardise
from partition.ops.pairs import dot_rows
from partition.ops.sums import sum_columns, sum_rows

aten = torch.ops.aten


def standardise_pair(x_2BD: Tensor, has_mean: bool, eps: float, out_2BD: Tensor, statistics: Tensor) -> None:
    """x̂ above Rx̂ from x above Rx, in place or not: (2B, D) -> (2B, D).

    The statistics have three rows of B numbers at least: r is left in the first and m D in the second.

    Example: `standardise_pair(x_2BD, True, 1e-5, torch.empty_like(x_2BD), torch.empty(3, B))`.
    """
    num_rows, share = x_2BD.shape[0] // 2, -1.0 / x_2BD.shape[1]
    standardised_BD, tangent_BD = out_2BD[:num_rows], out_2BD[num_rows:]
    r_B, dot_B, space_B = statistics[:3]
    standardise(x_2BD[:num_rows], has_mean, eps, standardised_BD, statistics[:2])
    if out_2BD is not x_2BD:
        tangent_BD.copy_(x_2BD[num_rows:])
    if has_mean:
        _centre(tangent_BD, dot_B, space_B)
    dot_rows(standardised_BD, tangent_BD, dot_B)
    tangent_BD.addcmul_(standardised_BD, dot_B.unsqueeze(1), value=share)
    tangent_BD.mul_(r_B.unsqueeze(1))


def rescale_pair(
    pair_2BD: Tensor, weight_D: Tensor, bias_D: Tensor | None, direction_D: Tensor, direction_bias_D: Tensor | None
) -> None:
    """N above Rn from x̂ above Rx̂, in place: (2B, D), (D,) four times.

    Example: `rescale_pair(pair_2BD, weight_D, None, direction_D, None)`.
    """
    num_rows = pair_2BD.shape[0] // 2
    standardised_BD, tangent_BD = pair_2BD[:num_rows], pair_2BD[num_rows:]
    tangent_BD.mul_(weight_D).addcmul_(standardised_BD, direction_D)
    if direction_bias_D is not None:
        tangent_BD.add_(direction_bias_D)
    rescale(standardised_BD, weight_D, bias_D)


def norm_weight_grad_pair(
    standardised_2BD: Tensor,
    grad_2BD: Tensor,
    is_first: bool,
    product_D: Tensor,
    workspace_BD: Tensor,
    sums_D: Tensor,
) -> None:
    """H V of the weight = sum of Rgrad ⊙ x̂ + grad ⊙ Rx̂ for the first microbatch of all, += afterwards.

    (2B, D), (2B, D) -> (D,) in `product_D`; `workspace_BD` and `sums_D` are overwritten.
    """
    num_rows = grad_2BD.shape[0] // 2
    torch.mul(grad_2BD[:num_rows], standardised_2BD[:num_rows], out=workspace_BD)
    workspace_BD.addcmul_(grad_2BD[num_rows:], standardised_2BD[num_rows:])
    sum_rows(workspace_BD, is_first, product_D, sums_D)


def norm_input_grad_pair(
    standardised_2BD: Tensor,
    grad_2BD: Tensor,
    weight_D: Tensor,
    direction_D: Tensor,
    has_mean: bool,
    workspace_BD: Tensor,
    statistics_5B: Tensor,
) -> None:
    """Rgrad_n above grad_n becomes Rgrad_x above grad_x in place: (2B, D).

    The first two rows of the statistics are those that `standardise_pair` left; the others are overwritten, and so are
    the second and the workspace.
    """
    num_rows, share = grad_2BD.shape[0] // 2, -1.0 / grad_2BD.shape[1]
    tangent_BD, grad_BD = grad_2BD[:num_rows], grad_2BD[num_rows:]
    standardised_BD, of_standardised_BD = standardised_2BD[:num_rows], standardised_2BD[num_rows:]
    r_B, m_B, d_B, e_B, space_B = statistics_5B
    tangent_BD.mul_(weight_D).addcmul_(grad_BD, direction_D)
    grad_BD.mul_(weight_D)
    if has_mean:
        _centre(grad_BD, d_B, space_B)
        _centre(tangent_BD, d_B, space_B)
    dot_rows(grad_BD, standardised_BD, d_B)
    torch.mul(tangent_BD, standardised_BD, out=workspace_BD)
    workspace_BD.addcmul_(grad_BD, of_standardised_BD)
    sum_columns(workspace_BD, e_B, space_B)
    tangent_BD.addcmul_(of_standardised_BD, d_B.unsqueeze(1), value=share)
    tangent_BD.addcmul_(standardised_BD, e_B.unsqueeze(1), value=share)
    grad_BD.addcmul_(standardised_BD, d_B.unsqueeze(1), value=share)
    tangent_BD.addcmul_(grad_BD, m_B.mul_(r_B).unsqueeze(1), value=share)
    tangent_BD.mul_(r_B.unsqueeze(1))
    grad_BD.mul_(r_B.unsqueeze(1))


def gated_pair(a_2BH: Tensor, b_2BH: Tensor, out_2BH: Tensor) -> None:
    """H = silu(a) ⊙ b above Rh: (2B, H), (2B, H) -> (2B, H), into a buffer of its own.

    Example: `gated_pair(a_2BH, b_2BH, torch.empty_like(a_2BH))`.
    """
    num_rows = a_2BH.shape[0] // 2
    a_BH, b_BH, h_BH, tangent_BH = a_2BH[:num_rows], b_2BH[:num_rows], out_2BH[:num_rows], out_2BH[num_rows:]
    tangent_BH.copy_(a_2BH[num_rows:])
    aten.silu_backward.grad_input(tangent_BH, a_BH, grad_input=tangent_BH)
    tangent_BH.mul_(b_BH)
    aten.silu.out(a_BH, out=h_BH)
    tangent_BH.addcmul_(h_BH, b_2BH[num_rows:])
    h_BH.mul_(b_BH)


def gated_grad_pair(
    a_2BH: Tensor, b_2BH: Tensor, grad_2BH: Tensor, grad_a_2BH: Tensor, workspaces: Sequence[Tensor], number: Tensor
) -> None:
    """Rgrad_h above grad_h becomes that of b, that of a goes into `grad_a_2BH`, and a becomes h; b is left as it is.

    The workspaces (B, H) and `number` are those of the second derivative of silu, `partition.ops.second`.
    """
    num_rows = a_2BH.shape[0] // 2
    (a_BH, ra_BH), (b_BH, rb_BH) = torch.split(a_2BH, num_rows), torch.split(b_2BH, num_rows)
    (rgrad_BH, grad_BH), (rgrad_a_BH, grad_a_BH) = torch.split(grad_2BH, num_rows), torch.split(grad_a_2BH, num_rows)
    torch.mul(rgrad_BH, b_BH, out=rgrad_a_BH)
    rgrad_a_BH.addcmul_(grad_BH, rb_BH)
    aten.silu_backward.grad_input(rgrad_a_BH, a_BH, grad_input=rgrad_a_BH)
    torch.mul(grad_BH, b_BH, out=grad_a_BH)
    second.SILU.add(grad_a_BH, a_BH, ra_BH, rgrad_a_BH, workspaces, number)
    aten.silu_backward.grad_input(grad_a_BH, a_BH, grad_input=grad_a_BH)
    slope_BH = workspaces[0].copy_(ra_BH)
    aten.silu_backward.grad_input(slope_BH, a_BH, grad_input=slope_BH)
    aten.silu.out(a_BH, out=a_BH)
    torch.mul(slope_BH, b_BH, out=ra_BH)
    ra_BH.addcmul_(a_BH, rb_BH)
    rgrad_BH.mul_(a_BH).addcmul_(grad_BH, slope_BH)
    grad_BH.mul_(a_BH)
    a_BH.mul_(b_BH)


def _centre(rows_BD: Tensor, sum_B: Tensor, workspace_B: Tensor) -> None:
    """The mean of every row taken off it, in place."""
    sum_columns(rows_BD, sum_B, workspace_B)
    rows_BD.sub_(sum_B.unsqueeze(1), alpha=1.0 / rows_BD.shape[1])
