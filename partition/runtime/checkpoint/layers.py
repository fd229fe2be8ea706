"""The state of one unit of a split by name: its parameters, and what the optimizer keeps of each.

weight, bias, weight.momentum_buffer, bias.momentum_buffer             SGD with momentum
weight, bias, weight.exp_avg, weight.exp_avg_sq, weight.step, ...      Adam and AdamW
norm.weight, norm.bias, up.weight, ..., up.weight.exp_avg, ...         of a block: the part's name before each
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from partition.errors import CheckpointError
from partition.runtime.parameters import Parameters
from partition.runtime.sharded import ShardedModel
from partition.runtime.workers import Fleet

PARAMETERS = ("weight", "bias")


def is_parameter(name: str) -> bool:
    """Whether a name is of a parameter, not of what the optimizer keeps of one."""
    return name.split(".")[-1] in PARAMETERS


@dataclass(frozen=True, kw_only=True)
class HeldLayer:
    """A layer, or a block, whose state lives in this process."""

    index: int
    parameters: Mapping[str, Parameters]
    """By the name of the part that they are of; the name is empty where the layer is a unit by itself."""
    optimizer: torch.optim.Optimizer
    replica: int = 0
    """Of copies of a layer, the first is the one that is saved."""

    def tensors(self) -> dict[str, Tensor]:
        """Its state by name, nothing copied."""
        found: dict[str, Tensor] = {}
        for part, parameters in self.parameters.items():
            prefix = f"{part}." if part else ""
            found |= {prefix + name: of for name, of in layer_tensors(parameters, self.optimizer).items()}
        return found


def held_layers(fleet: Fleet) -> Iterator[HeldLayer]:
    """Every layer that lives in this process, by stage."""
    for worker in fleet.workers:
        for update in worker.updates.values():
            stage = update.stage
            for unit in stage.program.layers:
                parameters = {part.name: stage.layers[part.index] for part in unit.weighted}
                yield HeldLayer(
                    index=unit.index, parameters=parameters, optimizer=update.optimizer, replica=worker.replica
                )


def saved_layers(fleet: Fleet | ShardedModel) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The layers that this process is to save. All processes go through it together: what is shared out is gathered."""
    if isinstance(fleet, ShardedModel):
        yield from fleet.gathered_layers()
    else:
        yield from ((layer.index, layer.tensors()) for layer in held_layers(fleet) if layer.replica == 0)


def layer_tensors(parameters: Parameters, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The parameters of a layer and their optimizer state by name: the tensors themselves, no copies."""
    found: dict[str, Tensor] = {}
    for name, parameter in (("weight", parameters.weight_OI), ("bias", parameters.bias_O)):
        if parameter is not None:
            found[name] = parameter
            found |= {f"{name}.{key}": value for key, value in optimizer.state[parameter].items()}
    return found


@torch.no_grad()
def restore_layer(
    held: Mapping[str, Tensor], saved: Mapping[str, Tensor], file: Path, *, parameters_only: bool = False
) -> None:
    """Copy what was saved into the tensors that are there; `file` is where it comes from.

    With `parameters_only` the optimizer's state is left as it is, whatever the file has of it.

    Raises CheckpointError, before anything is copied, where names, shapes or number formats differ.
    """
    if parameters_only:
        held = {name: tensor for name, tensor in held.items() if is_parameter(name)}
        saved = {name: tensor for name, tensor in saved.items() if not name.startswith(tuple(f"{of}." for of in held))}
    unlike = sorted(held.keys() ^ saved.keys())
    if unlike:
        names = ", ".join(sorted(held))
        raise CheckpointError(
            f"{file}: {unlike[0]!r} is {'missing' if unlike[0] in held else 'unknown'}; "
            f"a layer of this experiment has {names}"
        )
    for name, tensor in held.items():
        _check_alike(file, name, tensor, saved[name])
    for name, tensor in held.items():
        tensor.copy_(saved[name])


def _check_alike(file: Path, name: str, held: Tensor, saved: Tensor) -> None:
    if (held.shape, held.dtype) != (saved.shape, saved.dtype):
        raise CheckpointError(f"{file}: {name} is {_describe(saved)}, expected {_describe(held)}")


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
