"""Variables and their tangents: the operators of a Hessian-vector product, on buffers that the caller gives.

Shapes: B examples of a microbatch, I features in, O features out. A pair has 2B rows: a variable and, with R{f} the
derivative of f along a direction V of the parameters, its tangent. Activations have the tangent below, [h ; Rh],
gradients above, [Rg ; g], so that Rgᵀ x + gᵀ Rx is one product of two pairs.

             weight_OI, bias_O   and their directions
                     |
    [x ; Rx] ----> [ affine ] ----> [z ; Rz]           forward
    [Rg ; g] <---- [ affine ] <---- [Rg ; g]           the input gradient
                     |
              H V of the weight                        the weight gradient: `affine_weight_grad` of the two pairs

Nothing here allocates. Source: Pearlmutter 1994, *Fast exact multiplication by the Hessian*.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from partition.graph import ACTIVATION_RECORDS
from partition.ops.activations import Activation
from partition.ops.affine import affine, affine_input_grad


def affine_pair(
    x: Tensor,
    weight_OI: Tensor,
    bias_O: Tensor | None,
    direction_OI: Tensor,
    direction_O: Tensor | None,
    out_2BO: Tensor,
) -> None:
    """Z = x Wᵀ + b and Rz = Rx Wᵀ + x Vᵀ + Vb: (2B, I) -> (2B, O), written into `out_2BO`.

    Where x has B rows, half of `out_2BO`'s, it is the network's input, which has no tangent.

    Example: `affine_pair(x_2BI, weight_OI, None, direction_OI, None, torch.empty(2 * B, O))`.
    """
    num_rows = out_2BO.shape[0] // 2
    z_BO, tangent_BO = out_2BO[:num_rows], out_2BO[num_rows:]
    if x.shape[0] == num_rows:
        affine(x, weight_OI, bias_O, z_BO)
        affine(x, direction_OI, direction_O, tangent_BO)
        return
    affine(x, weight_OI, None, out_2BO)
    tangent_BO.addmm_(x[:num_rows], direction_OI.t())
    if bias_O is not None and direction_O is not None:
        z_BO.add_(bias_O)
        tangent_BO.add_(direction_O)


def affine_input_grad_pair(grad_z_2BO: Tensor, weight_OI: Tensor, direction_OI: Tensor, out_2BI: Tensor) -> None:
    """Rgrad_x = Rg W + g V above grad_x = g W: (2B, O) -> (2B, I), written into `out_2BI`.

    Example: `affine_input_grad_pair(grad_z_2BO, weight_OI, direction_OI, torch.empty(2 * B, I))`.
    """
    num_rows = grad_z_2BO.shape[0] // 2
    affine_input_grad(grad_z_2BO, weight_OI, out_2BI)
    out_2BI[:num_rows].addmm_(grad_z_2BO[num_rows:], direction_OI)


def add_input_grad_pair(grad_z_2BO: Tensor, weight_OI: Tensor, direction_OI: Tensor, out_2BI: Tensor) -> None:
    """The same, added to what `out_2BI` holds: (2B, O) -> (2B, I).

    Example: `add_input_grad_pair(grad_z_2BO, weight_OI, direction_OI, grad_x_2BI)`.
    """
    out_2BI.addmm_(grad_z_2BO, weight_OI)
    num_rows = grad_z_2BO.shape[0] // 2
    out_2BI[:num_rows].addmm_(grad_z_2BO[num_rows:], direction_OI)


def activate_pair(
    activation: Activation,
    z_2BO: Tensor,
    out_2BO: Tensor,
    *,
    is_output_kept: bool,
    workspace_BO: Tensor | None = None,
) -> None:
    """H = phi(z) above Rh = phi'(z) ⊙ Rz: (2B, O) -> (2B, O); `out_2BO` may be `z_2BO` itself.

    `is_output_kept`: phi' is computed from h, not from z. The workspace is for activations whose record has one.
    """
    num_rows = z_2BO.shape[0] // 2
    z_BO, h_BO = z_2BO[:num_rows], out_2BO[:num_rows]
    tangent_BO = out_2BO[num_rows:]
    if out_2BO is not z_2BO:
        tangent_BO.copy_(z_2BO[num_rows:])
    if is_output_kept:
        activation.forward(z_BO, h_BO)
        activation.backward(tangent_BO, h_BO)
    else:
        activation.backward(tangent_BO, z_BO, *(() if workspace_BO is None else (workspace_BO,)))
        activation.forward(z_BO, h_BO)


def activation_grad_pair(
    activation: Activation, grad_2BO: Tensor, kept_2BO: Tensor, workspaces: Sequence[Tensor], number: Tensor
) -> None:
    """Rg <- Rg ⊙ phi' + g ⊙ R{phi'} above g <- g ⊙ phi', in place: (2B, O), (2B, O).

    R{phi'} is phi'' times the tangent of what is kept; workspaces (B, O) and `number` as `partition.ops.second` says.
    """
    num_rows = grad_2BO.shape[0] // 2
    tangent_BO, grad_BO, kept_BO = grad_2BO[:num_rows], grad_2BO[num_rows:], kept_2BO[:num_rows]
    # One that has a workspace in its first derivative has one in its second too, which is free before and after.
    slope = workspaces[:1] if ACTIVATION_RECORDS[activation.name].has_workspace else ()
    activation.backward(tangent_BO, kept_BO, *slope)
    if activation.second is not None:
        activation.second.add(grad_BO, kept_BO, kept_2BO[num_rows:], tangent_BO, workspaces, number)
    activation.backward(grad_BO, kept_BO, *slope)


def dot_rows(x_OI: Tensor, y_OI: Tensor, out_O: Tensor) -> None:
    """The inner product of every row of x with that of y: (O, I), (O, I) -> (O,), written into `out_O`."""
    torch.bmm(x_OI.unsqueeze(1), y_OI.unsqueeze(2), out=out_O.view(-1, 1, 1))
