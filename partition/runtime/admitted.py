"""What the modules for people's own loops take: each wrong argument is told in one line, with what would be right."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from partition.config import ModelConfig
from partition.config.arguments import kind_of
from partition.config.model import LARGEST_WIDTH
from partition.config.schema import LARGEST_SEED
from partition.errors import PartitionError

DTYPES = (torch.float32, torch.float64)


def check_model(config: object) -> ModelConfig:
    """A model section, or PartitionError."""
    if isinstance(config, ModelConfig):
        return config
    hint = "give its model section, config.model" if hasattr(config, "model") else "give config.model of a load_config"
    raise PartitionError(f"build_module takes a ModelConfig, got {kind_of(config)}; {hint}")


def check_seed(seed: object) -> int:
    """A seed as training.seed admits it, or PartitionError."""
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number <= LARGEST_SEED:
        shown = repr(seed) if len(repr(seed)) <= 40 else kind_of(seed)
        raise PartitionError(f"seed {shown}: give a whole number from 0 to {LARGEST_SEED}")
    return number


def check_dtype(dtype: object) -> torch.dtype:
    """A number format that the module computes in, or PartitionError."""
    if isinstance(dtype, torch.dtype) and dtype in DTYPES:
        return dtype
    raise PartitionError(
        f"dtype {dtype}: the module computes in torch.float32 or torch.float64; convert it, or train with "
        "precision.compute: bfloat16"
    )


def check_input(x: object, columns: int, weight_OI: Tensor) -> None:
    """A dense tensor of the module's width, in its format and where it is, under no transform; else PartitionError."""
    if not isinstance(x, Tensor):
        raise PartitionError(f"the module takes a torch.Tensor, got {kind_of(x)}; give torch.as_tensor(x)")
    if x.shape[-1:] != (columns,):
        raise PartitionError(
            f"the module takes (..., {columns}) inputs, got {tuple(x.shape)}; change the input or the model"
        )
    if torch._C._are_functorch_transforms_active():
        raise PartitionError(
            "the module's backward is written by hand, which torch.func (vmap, grad, jvp, ...) does not pass through; "
            "use torch.autograd.grad and torch.autograd.functional, or module.to_torch()"
        )
    dtype, device = check_dtype(weight_OI.dtype), weight_OI.device
    if x.layout is not torch.strided:
        raise PartitionError(f"the module takes dense inputs, got {x.layout}; give x.to_dense()")
    if x.dtype is not dtype or x.device != device:
        raise PartitionError(
            f"the module is in {dtype} on {device}, its input in {x.dtype} on {x.device}; give "
            f"x.to('{device}', {dtype}), or convert the module"
        )


def check_sequential(sequential: object) -> list[nn.Module]:
    """Linear layers in a row, or Linear and one other module in turn, Linear at both ends; else PartitionError."""
    if not isinstance(sequential, nn.Sequential):
        raise PartitionError(
            f"from_torch takes a torch.nn.Sequential, got {kind_of(sequential)}; put its layers into one"
        )
    modules = list(sequential)
    # Of a subclass nobody knows what it computes: a parametrised weight would be copied without its parametrisation.
    is_linear = [type(module) is nn.Linear for module in modules]
    in_turn = [index % 2 == 0 for index in range(len(is_linear))]
    if not is_linear or not is_linear[-1] or (not all(is_linear) and is_linear != in_turn):
        kinds = ", ".join(type(module).__name__ for module in modules) or "nothing"
        raise PartitionError(f"the Sequential holds {kinds}; give Linear, activation, ..., Linear")
    # A copy would have weights of its own in each place, and none of what hooks do.
    if len({id(module) for module in modules if type(module) is nn.Linear}) < sum(is_linear):
        raise PartitionError("the Sequential holds one Linear twice; give layers that share no weight")
    if any(module._forward_hooks or module._forward_pre_hooks for module in modules):
        raise PartitionError("the Sequential has layers with forward hooks, which would be lost; remove them first")
    _check_widths([module for module in modules if isinstance(module, nn.Linear)])
    return modules


def _check_widths(linears: Sequence[nn.Linear]) -> None:
    for linear in linears:
        if not all(1 <= size <= LARGEST_WIDTH for size in (linear.in_features, linear.out_features)):
            raise PartitionError(f"{linear}: features go from 1 to {LARGEST_WIDTH}; give other layers")
