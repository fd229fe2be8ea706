"""The same network as an ordinary `torch.nn.Module`, for people who keep their own training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from partition.config import ModelConfig
from partition.errors import PartitionError
from partition.graph import ACTIVATION_RECORDS, Category, Network, StageProgram, build_module_program, build_network
from partition.graph.layers import Weighted
from partition.ops.dropout import MaskKey
from partition.runtime.admitted import check_dtype, check_input, check_model, check_seed, check_sequential
from partition.runtime.differentiable import differentiable_forward
from partition.runtime.parameters import Parameters, initialise
from partition.runtime.plain import ACTIVATION_MODULES, plain_network
from partition.runtime.stage import Frame, Stage


class _Unlimited:
    """Tensors straight from torch, for a module that nobody has planned."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    def take(
        self, shape: tuple[int, ...], category: Category, purpose: str, dtype: torch.dtype | None = None
    ) -> Tensor:
        """A new tensor of undefined content."""
        del category, purpose
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.device)

    def give(self, tensor: Tensor, category: Category) -> None:
        """Nothing to count."""


class HandWrittenModule(nn.Module):
    """A network whose backward is the hand-written one; parameters as in `to_torch()`.

    ``module(x)`` are the logits, (..., in_features) -> (..., out_features); ``.backward()`` fills ``.grad`` at once.
    With ``train()``, as a module begins, every call drops others than the call before; with ``eval()`` none does.
    """

    def __init__(self, config: ModelConfig, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        super().__init__()
        dtype = check_dtype(dtype)
        self.config = check_model(config)
        self.seed = check_seed(seed)
        self.step = 0
        """Calls that dropped something; with the seed it says what."""
        # The penalty is `penalty()`, a term of the caller's own loss, not part of the gradients here.
        self.network: Network = replace(build_network(config), l2_penalty=0.0)
        self.program = build_module_program(self.network)
        self.program_of_eval = build_module_program(self.network.without_dropout())
        for part in self.weighted:
            weight = nn.Parameter(torch.empty(part.weight_shape, dtype=dtype))
            bias = nn.Parameter(torch.empty(part.weight_shape[0], dtype=dtype)) if part.has_bias else None
            self.register_parameter(f"weight{part.index}", weight)
            self.register_parameter(f"bias{part.index}", bias)

    @property
    def weighted(self) -> list[Weighted]:
        """Layers and norms, in order."""
        return [part for unit in self.network.layers for part in unit.weighted]

    def pairs(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of every layer and norm, in order."""
        return [(getattr(self, f"weight{part.index}"), getattr(self, f"bias{part.index}")) for part in self.weighted]

    def forward(self, x: Tensor) -> Tensor:
        """The logits of a batch with any leading dimensions."""
        expected = self.network.layers[0].in_features
        check_input(x, expected, self.pairs()[0][0])
        flat_BI = x.reshape(-1, expected).contiguous()
        parameters = [tensor for pair in self.pairs() for tensor in pair if tensor is not None]
        call = _Call(module=self, step=self._next_step())
        if not torch.is_grad_enabled() and call.step is None:
            stage, frame = _one_stage(call, flat_BI)
            return stage.predict(frame).view(*x.shape[:-1], self.config.out_features)
        logits: Tensor = _ModuleFunction.apply(call, flat_BI, *parameters)  # type: ignore[no-untyped-call]
        return logits.view(*x.shape[:-1], self.config.out_features)

    def _next_step(self) -> int | None:
        """A number for the masks of a call; None where nothing is dropped."""
        if not (self.training and self.network.has_dropout):
            return None
        self.step += 1
        return self.step

    def penalty(self) -> Tensor:
        """The L2 penalty s = lambda/2 * sum of squared weights, to be added to a loss."""
        weights = [weight for weight, _ in self.pairs()]
        # Norms have weights of one dimension, which are not penalised.
        squares = (weight.square().sum() for weight in weights if weight.dim() == 2)
        total = sum(squares, start=weights[0].new_zeros(()))
        return total * (self.config.l2_penalty / 2)

    def to_torch(self) -> nn.Sequential:
        """A plain Sequential of Linear and activations, or of blocks, with copies of the parameters.

        Its dropout draws from torch's own generator: in `train()` it drops others than this module does.
        """
        pairs = {part.index: pair for part, pair in zip(self.weighted, self.pairs(), strict=True)}
        return plain_network(self.network, pairs).train(self.training)


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call of a module."""

    module: HandWrittenModule
    step: int | None
    """Of the masks; None where nothing is dropped."""

    @property
    def program(self) -> StageProgram:
        """With dropout or without."""
        return self.module.program_of_eval if self.step is None else self.module.program


class _ModuleFunction(torch.autograd.Function):
    """The whole network as one node: one kept tensor per layer, all gradients at once."""

    @staticmethod
    def forward(ctx: Any, call: _Call, x_BI: Tensor, *parameters: Tensor) -> Tensor:
        """(B, I) -> (B, O)."""
        ctx.save_for_backward(x_BI, *parameters)  # so that autograd notices when they change before the backward
        stage, frame = _one_stage(call, x_BI)
        stage.run(stage.program.forward, frame)
        ctx.call, ctx.frame = call, frame
        # The logits are kept by nobody: no activation follows the last layer.
        return frame.tensors.pop(stage.program.output.name)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the input and of every parameter."""
        x_BI, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_differentiable_grads(ctx, x_BI, parameters, grad_output)
        frame, ctx.frame = ctx.frame, None
        stage, anew = _one_stage(ctx.call, x_BI, has_grads=True)
        if frame is None:  # used by an earlier backward of a retained graph: the same forward gives the same tensors
            frame = anew
            stage.run(stage.program.forward, frame)
        program = stage.program
        assert program.grad_output is not None
        assert program.grad_input is not None
        # The gradient that autograd hands over may be shared or expanded: work on a copy.
        stage.receive(program.grad_output, frame).copy_(grad_output)
        stage.run(program.backward, frame)
        grads = [tensor for of in stage.layers.values() for tensor in (of.grad_weight_OI, of.grad_bias_O)]
        return (None, frame.tensors[program.grad_input.name], *(grad for grad in grads if grad is not None))


def _differentiable_grads(
    ctx: Any, x_BI: Tensor, parameters: Sequence[Tensor], grad_output: Tensor
) -> list[Tensor | None]:
    """The gradients that are wanted of input and parameters, with create_graph=True: they can be differentiated again.

    The forward runs once more, a node for each operator. Only who differentiates twice pays for that, in time and in
    what these nodes keep.
    """
    inputs = [x_BI, *parameters]
    wanted = [place for place, is_wanted in enumerate(ctx.needs_input_grad[1:]) if is_wanted]
    logits = differentiable_forward(ctx.call.program.layers, x_BI, parameters, _seeded(ctx.call))
    found = torch.autograd.grad(
        logits, [inputs[place] for place in wanted], grad_output, create_graph=True, allow_unused=True
    )
    of_place = dict(zip(wanted, found, strict=True))
    return [of_place.get(place) for place in range(len(inputs))]


def _seeded(call: _Call) -> MaskKey:
    """Of the masks of a call, the first."""
    return MaskKey(seed=call.module.seed, step=call.step or 0, dropout=0, first_example=0)


def _one_stage(call: _Call, x_BI: Tensor, *, has_grads: bool = False) -> tuple[Stage, Frame]:
    """The module as a stage, with gradient buffers where a backward will fill them, and its input's frame."""
    buffer = torch.empty_like if has_grads else Tensor.detach  # a forward touches no gradient
    module = call.module
    layers = {
        index: Parameters(
            weight_OI=weight,
            grad_weight_OI=buffer(weight),
            bias_O=bias,
            grad_bias_O=None if bias is None else buffer(bias),
        )
        for index, (weight, bias) in enumerate(module.pairs())
    }
    source = _Unlimited(x_BI.device, x_BI.dtype)
    stage = Stage(module.network, call.program, source, layers, 0, seed=module.seed)
    frame = Frame(microbatch=0, rows=x_BI.shape[0], weight=1.0, is_first=True, step=call.step or 0,
                  tensors={"x": x_BI})  # fmt: skip
    return stage, frame


def build_module(config: ModelConfig, seed: int = 0, *, dtype: torch.dtype = torch.float32) -> HandWrittenModule:
    """The network of a model section with the initial parameters of a seed, the same as a training run's.

    Raises PartitionError for what is no model section, seed or number format of the module.
    """
    module = HandWrittenModule(config, dtype=dtype, seed=seed)
    records = {
        index: Parameters(weight_OI=weight, grad_weight_OI=weight, bias_O=bias, grad_bias_O=None)
        for index, (weight, bias) in enumerate(module.pairs())
    }
    initialise(module.weighted, records, module.seed)
    return module


def from_torch(sequential: nn.Sequential) -> HandWrittenModule:
    """The hand-written counterpart of a Sequential of Linear layers with one kind of activation between them.

    Raises PartitionError, naming the place, for anything else.
    """
    modules = check_sequential(sequential)
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    between = [module for module in modules if not isinstance(module, nn.Linear)]
    for before, after in pairwise(linears):
        if before.out_features != after.in_features or before.weight.dtype != after.weight.dtype:
            raise PartitionError(
                f"{before} is followed by {after}; give layers whose widths meet, all of one number format"
            )
    names = {_activation_name(module) for module in between} or {"identity"}
    biases = {linear.bias is not None for linear in linears}
    if len(names) > 1 or len(biases) > 1:
        raise PartitionError(
            f"activations {sorted(names)} and bias in {sum(linear.bias is not None for linear in linears)} of "
            f"{len(linears)} Linear layers; give one kind of activation, and a bias in all layers or in none"
        )
    config = ModelConfig.model_validate({
        "in_features": linears[0].in_features,
        "hidden_features": tuple(linear.out_features for linear in linears[:-1]),
        "out_features": linears[-1].out_features,
        "activation": names.pop(),
        "bias": biases.pop(),
    })  # fmt: skip
    module = HandWrittenModule(config, dtype=linears[0].weight.dtype).to(linears[0].weight.device)
    with torch.no_grad():
        for (weight, bias), linear in zip(module.pairs(), linears, strict=True):
            weight.copy_(linear.weight)
            if bias is not None:
                bias.copy_(linear.bias)
    return module


def _has_usual_options(module: nn.Module, usual: nn.Module) -> bool:
    """Whether slopes and the like are torch's defaults; in place or not is the same function."""
    names = [name for name in getattr(module, "__constants__", ()) if name != "inplace"]
    return all(getattr(module, name) == getattr(usual, name) for name in names)


def _activation_name(module: nn.Module) -> str:
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        return "gelu_tanh"
    for name, kind in ACTIVATION_MODULES.items():
        if type(module) is kind and _has_usual_options(module, kind()):
            return name
    raise PartitionError(
        f"activation {module} has no hand-written counterpart; known, with torch's own slopes and shapes, are "
        f"{', '.join(ACTIVATION_RECORDS)}"
    )
