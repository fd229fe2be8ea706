"""The operators of affine layers, their activations and the loss meet their kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from partition.graph.program import (
    TARGETS,
    Activate,
    ActivationGrad,
    Affine,
    ExampleNorms,
    InputGrad,
    Load,
    LossAndGrad,
    WeightGrad,
)
from partition.ops import (
    ACTIVATIONS,
    affine,
    affine_bias_grad,
    affine_example_norms,
    affine_input_grad,
    affine_weight_grad,
)

if TYPE_CHECKING:
    from partition.runtime.stage import Frame, Stage


def _load(stage: Stage, instruction: Load, frame: Frame) -> None:
    del stage
    assert frame.feed is not None, "the first and the last stage are fed"
    name = instruction.into.name
    frame.feed(TARGETS if name == TARGETS else "x", frame.microbatch, frame.tensors[name])


def _affine(stage: Stage, instruction: Affine, frame: Frame) -> None:
    layer, x, z, weights = instruction
    weight_OI, bias_O = stage.weights_of(layer, weights, frame)
    affine(frame.tensors[x.name], weight_OI, bias_O, frame.tensors[z.name])


def _activate(stage: Stage, instruction: Activate, frame: Frame) -> None:
    del stage
    layer, z, h = instruction
    ACTIVATIONS[layer.activation.name].forward(frame.tensors[z.name], frame.tensors[h.name])


def _activation_grad(stage: Stage, instruction: ActivationGrad, frame: Frame) -> None:
    del stage
    layer, kept, grad, workspace = instruction
    others = () if workspace is None else (frame.tensors[workspace.name],)
    ACTIVATIONS[layer.activation.name].backward(frame.tensors[grad.name], frame.tensors[kept.name], *others)


def _input_grad(stage: Stage, instruction: InputGrad, frame: Frame) -> None:
    layer, grad_z, grad_x, weights = instruction
    weight_OI, _ = stage.weights_of(layer, weights, frame)
    affine_input_grad(frame.tensors[grad_z.name], weight_OI, frame.tensors[grad_x.name])


def _weight_grad(stage: Stage, instruction: WeightGrad, frame: Frame) -> None:
    layer, x, grad_z, workspace = instruction
    of, grad_z_BO = stage.layers[layer.index], frame.tensors[grad_z.name]
    affine_weight_grad(frame.tensors[x.name], grad_z_BO, frame.is_first, of.grad_weight_OI)
    if workspace is not None and of.grad_bias_O is not None:
        affine_bias_grad(grad_z_BO, frame.is_first, of.grad_bias_O, frame.tensors[workspace.name])


def _example_norms(stage: Stage, instruction: ExampleNorms, frame: Frame) -> None:
    layer, x, grad_z, workspace, _ = instruction
    workspace_2B, norm_out = frame.tensors[workspace.name].view(2, -1), stage.norm_of(layer, frame)
    affine_example_norms(frame.tensors[x.name], frame.tensors[grad_z.name], layer.has_bias, workspace_2B, norm_out)


def _loss_and_grad(stage: Stage, instruction: LossAndGrad, frame: Frame) -> None:
    o, targets, grad_o, workspace, _ = instruction
    stage.loss.forward(
        frame.tensors[o.name],
        frame.tensors[targets.name],
        frame.weight,
        frame.tensors[grad_o.name],
        frame.tensors[workspace.name] if workspace else None,
        stage.losses_M[frame.microbatch],
    )


AFFINE_METHODS: dict[type, Callable[[Stage, Any, Frame], None]] = {
    Load: _load,
    Affine: _affine,
    Activate: _activate,
    ActivationGrad: _activation_grad,
    InputGrad: _input_grad,
    WeightGrad: _weight_grad,
    ExampleNorms: _example_norms,
    LossAndGrad: _loss_and_grad,
}
