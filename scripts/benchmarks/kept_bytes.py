"""Bytes between forward and backward: what a stage keeps beside what automatic differentiation saves.

python -m scripts.benchmarks.kept_bytes       prints shares of autograd, writes docs/results/kept_bytes.json

Both compute the same outputs from the same parameters. Input and what is kept of it count on both sides, parameters on
neither. A stage's bytes are the storages in its frame, autograd's the storages that it saves for the backward of
`to_torch()`, each counted once. Bytes are exact: a test measures every row of the file again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from partition.config import ModelConfig
from partition.costs import Device
from partition.graph import ACTIVATION_RECORDS, Network, build_network, build_stage_program
from partition.graph.program import build_module_program
from partition.ops.losses import summed_loss
from partition.runtime import build_module
from partition.runtime.device import RuntimeDevice
from partition.runtime.parameters import initialise, take_parameters
from partition.runtime.stage import Frame, Stage
from scripts.benchmarks.replay import write_result

ROWS, WIDTH, OUTPUTS = 32, 64, 10
"""Examples, features of the input and of every hidden layer, outputs."""
DEPTHS = range(1, 13)
SHOWN_DEPTHS = (1, 2, 3, 6, 12)
BLOCKS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "linear": {"linear": WIDTH, "activation": "gelu"},
        "norm_linear_dropout": {"norm": "layer_norm", "linear": WIDTH, "activation": "gelu", "dropout": 0.1},
        "residual_relu": {"residual": {"hidden": 2 * WIDTH, "activation": "relu"}},
        "residual_layer_norm_gelu": {"residual": {"norm": "layer_norm", "hidden": 2 * WIDTH, "activation": "gelu"}},
        "residual_dropout": {
            "residual": {"norm": "layer_norm", "hidden": 2 * WIDTH, "activation": "gelu", "dropout": 0.1}
        },
        "residual_rms_norm_swiglu": {"residual": {"norm": "rms_norm", "swiglu": 2 * WIDTH}},
    }
)
"""A kind of block by name, repeated as often as the depth says."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Bytes of one network between forward and backward."""

    stage_bytes: int
    autograd_bytes: int

    @property
    def share(self) -> float:
        """Of what autograd saves."""
        return self.stage_bytes / self.autograd_bytes


def main() -> None:
    """Measure everything, print shares, write the result."""
    rows = measure_all()
    print(table(rows))
    write_result("kept_bytes", "scripts/benchmarks/kept_bytes.py", rows)


def measure_all() -> list[dict[str, Any]]:
    """Every activation and block at every depth, without the loss and with it."""
    networks = [(name, plain_model(name, depth), depth) for name in ACTIVATION_RECORDS for depth in DEPTHS]
    networks += [(name, block_model(name, depth), depth) for name in BLOCKS for depth in DEPTHS]
    return [_row(name, model, depth) for name, model, depth in networks]


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Shares of autograd, a line for each activation and block."""
    names = dict.fromkeys(row["network"] for row in rows)
    shares = {(row["network"], row["depth"]): row["stage_bytes"] / row["autograd_bytes"] for row in rows}
    width = max(map(len, names))
    lines = ["depth".ljust(width) + "".join(f"{depth:8}" for depth in SHOWN_DEPTHS)]
    lines += [name.ljust(width) + "".join(f"{shares[name, depth]:8.3f}" for depth in SHOWN_DEPTHS) for name in names]
    return "\n".join(lines)


def plain_model(activation: str, depth: int, **changes: Any) -> ModelConfig:
    """So many equal hidden layers."""
    return ModelConfig.model_validate(
        {"in_features": WIDTH, "hidden_features": (WIDTH,) * depth, "out_features": OUTPUTS, "activation": activation}
        | changes
    )


def block_model(name: str, depth: int) -> ModelConfig:
    """So many equal blocks."""
    blocks = ({**BLOCKS[name], "repeat": depth},)
    return ModelConfig.model_validate({"in_features": WIDTH, "out_features": OUTPUTS, "blocks": blocks})


def kept(model: ModelConfig, rows: int = ROWS) -> Kept:
    """Of the network up to its outputs, which whoever comes next keeps or not."""
    network, x_BI = build_network(model), torch.randn(rows, model.in_features)
    stage = build_stage(network, build_module_program(network))
    frame = _frame(rows, None)
    stage.receive(stage.program.input, frame).copy_(x_BI)
    stage.forward(frame)
    stage.give_back(stage.program.output, frame)
    plain = build_module(model).to_torch()
    return Kept(
        stage_bytes=num_bytes(frame.tensors.values()),
        autograd_bytes=saved_bytes(lambda: plain(x_BI), plain),
    )


def kept_with_loss(model: ModelConfig, rows: int = ROWS) -> Kept:
    """Of the network and its loss: what training keeps of a microbatch on one device."""
    network, x_BI = build_network(model), torch.randn(rows, model.in_features)
    targets = _targets(network, rows)

    def feed(variable: str, microbatch: int, into: Tensor) -> None:
        del microbatch
        into.copy_(x_BI if variable == "x" else targets)

    stage = build_stage(network, build_stage_program(network, 0, network.num_layers - 1))
    frame = _frame(rows, feed)
    stage.forward(frame)
    plain = build_module(model).to_torch()
    return Kept(
        stage_bytes=num_bytes(frame.tensors.values()),
        autograd_bytes=saved_bytes(lambda: summed_loss(network.loss, plain(x_BI), targets), plain),
    )


def saved_bytes(forward: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes of the distinct storages, parameters apart, that autograd saves while `forward` runs."""
    saved: list[Tensor] = []  # held, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    assert output.requires_grad
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    return num_bytes(tensor for tensor in saved if tensor.untyped_storage().data_ptr() not in parameters)


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Of the distinct storages of tensors."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def build_stage(network: Network, program: Any, dtype: torch.dtype = torch.float32) -> Stage:
    """A stage on a simulated device, its parameters drawn."""
    spec = Device(name="simulated:0", kind="simulated", memory_bytes=2**32, flop_per_s=1.0, memory_bytes_per_s=1.0,
                  source="")  # fmt: skip
    device = RuntimeDevice(spec, dtype)
    weighted = [part for unit in program.layers for part in unit.weighted]
    layers = {part.index: take_parameters(part, device) for part in weighted}
    initialise(weighted, layers, 0)
    return Stage(network, program, device, layers, 1)


def _frame(rows: int, feed: Any) -> Frame:
    return Frame(microbatch=0, rows=rows, weight=1 / rows, is_first=True, feed=feed, step=1)


def _targets(network: Network, rows: int) -> Tensor:
    num_outputs = network.layers[-1].out_features
    return torch.randint(num_outputs, (rows,)) if network.loss.has_class_targets else torch.rand(rows, num_outputs)


def _row(name: str, model: ModelConfig, depth: int) -> dict[str, Any]:
    without, whole = kept(model), kept_with_loss(model)
    return {
        "network": name,
        "depth": depth,
        "stage_bytes": without.stage_bytes,
        "autograd_bytes": without.autograd_bytes,
        "stage_bytes_with_loss": whole.stage_bytes,
        "autograd_bytes_with_loss": whole.autograd_bytes,
    }


if __name__ == "__main__":
    main()
