"""An experiment back to the form in which a file holds it: read again, it is equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

import yaml

from partition.config.cluster import ClusterConfig, DeviceConfig, LinkConfig, LinksConfig
from partition.config.data import KEYS_OF_SOURCE, DataConfig
from partition.config.model import IMPORTED, LOSS_OF_OPTION, BlockConfig
from partition.config.scalars import read_plain_scalar
from partition.config.schema import (
    ChainConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    PlannerConfig,
    TrainingConfig,
)
from partition.units import parse_bytes, parse_bytes_per_s, parse_flop_per_s, parse_seconds

_BYTES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_RATES = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_OPTIMIZER_KEYS = {
    "sgd": ("momentum",),
    "adam": ("betas", "eps"),
    "adamw": ("betas", "eps", "weight_decay"),
}
_ALL_OPTIMIZERS_KEYS = ("max_grad_norm", "lr_schedule", "lr_final", "warmup_steps")


def resolve(config: ExperimentConfig | ChainConfig) -> dict[str, Any]:
    """The experiment as plain values for YAML, defaults written out; its name is the file's and is left out."""
    if isinstance(config, ChainConfig):
        return {
            "model": config.model.model_dump(),
            "training": config.training.model_dump(),
            "cluster": _cluster(config.cluster),
            "planner": _planner(config.planner),
        }
    resolved: dict[str, Any] = {
        "model": _model(config.model),
        "precision": _without_none(config.precision.model_dump()),
        "data": _data(config.data),
        "training": _training(config.training),
        "optimizer": _optimizer(config.optimizer),
        "checkpoint": _without_none(config.checkpoint.model_dump()),
        "cluster": _cluster(config.cluster),
        "planner": _planner(config.planner),
    }
    return resolved


def flatten(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every plain value of a resolved experiment with its dotted key path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{index}")
    else:
        yield prefix, value


def dump_config(config: ExperimentConfig | ChainConfig) -> str:
    """The experiment as YAML text that `load_config` reads back to an equal one."""
    return yaml.dump(resolve(config), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would not read as text, and writes equal values out, not as aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(read_plain_scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if value is not None}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def _model(model: ModelConfig) -> dict[str, Any]:
    values = _without_none(model.model_dump())
    for key, loss in LOSS_OF_OPTION.items():
        if model.loss != loss and not (loss == IMPORTED and model.is_loss_imported):
            values.pop(key, None)
    if model.blocks is not None:
        del values["hidden_features"]
        values["blocks"] = [_block(block) for block in model.blocks]
    hidden = model.hidden_features
    if len(hidden) > 1 and len(set(hidden)) == 1:
        values["hidden_features"] = {"width": hidden[0], "depth": len(hidden)}
    return values


def _block(block: BlockConfig) -> dict[str, Any]:
    """Without what is not there, which would say nothing."""
    values = block.model_dump(exclude_defaults=True)
    if block.residual is not None:
        values["residual"] = block.residual.model_dump(exclude_defaults=True)
    return values


def _training(training: TrainingConfig) -> dict[str, Any]:
    values = _without_none(training.model_dump())
    del values["timeout_s"]
    return {**values, "timeout": _quantity(training.timeout_s, _SECONDS.items(), parse_seconds)}


def _data(data: DataConfig) -> dict[str, Any]:
    values = _without_none(data.model_dump())
    for key in ("arguments", "test_arguments"):
        if key in values:
            values[key] = {name: list(one) if isinstance(one, tuple) else one for name, one in values[key]}
    return {key: values[key] for key in ("source", *KEYS_OF_SOURCE[data.source]) if key in values}


def _optimizer(optimizer: OptimizerConfig) -> dict[str, Any]:
    values = _without_none(optimizer.model_dump())
    keys = ("name", "lr", *_OPTIMIZER_KEYS[optimizer.name], *_ALL_OPTIMIZERS_KEYS)
    return {key: values[key] for key in keys if key in values}


def _cluster(cluster: ClusterConfig) -> dict[str, Any]:
    # Compared and hashed as records: equal neighbours are one entry with their count.
    groups = [(device, len(list(alike))) for device, alike in groupby(cluster.devices)]
    devices = [_device(device, count) for device, count in groups]
    values: dict[str, Any] = {"devices": devices if len(devices) > 1 else devices[0]}
    if not cluster.links.is_default:
        values["links"] = _links(cluster.links)
    context = cluster.context_bytes
    values["headroom"] = cluster.headroom
    values["context"] = None if context is None else _quantity(context, _BYTES.items(), parse_bytes)
    return _without_none(values)


def _device(device: DeviceConfig, count: int) -> dict[str, Any]:
    rates = {name: _rate(rate, "FLOP/s", parse_flop_per_s) for name, rate in device.flop_per_s or ()}
    memory, bandwidth = device.memory_bytes, device.memory_bytes_per_s
    values = {
        "name": device.name,
        "count": count,
        "kind": device.kind,
        "memory": None if memory is None else _quantity(memory, _BYTES.items(), parse_bytes),
        "compute": rates["default"] if rates.keys() == {"default"} else rates or None,
        "memory_bandwidth": None if bandwidth is None else _rate(bandwidth, "B/s", parse_bytes_per_s),
    }
    return _without_none(values)


def _planner(planner: PlannerConfig) -> dict[str, Any]:
    values = _without_none(planner.model_dump())
    if planner.keep_together is not None:
        values["keep_together"] = [list(run) for run in planner.keep_together]
    if planner.pinned is not None:
        values["pinned"] = [{"layers": list(pin.layers), "device": pin.device} for pin in planner.pinned]
    return values


def _links(links: LinksConfig) -> dict[str, Any]:
    if links.inter_node is None:
        return _link(links.intra_node)
    return {
        "intra_node": _link(links.intra_node),
        "inter_node": _link(links.inter_node),
        "devices_per_node": links.devices_per_node,
    }


def _link(link: LinkConfig) -> dict[str, Any]:
    return {
        "bandwidth": _rate(link.bytes_per_s, "B/s", parse_bytes_per_s),
        "latency": _quantity(link.latency_s, _SECONDS.items(), parse_seconds),
    }


def _rate(rate: float, unit: str, parse: Callable[[str], float]) -> str | float:
    return _quantity(rate, [(prefix + unit, factor) for prefix, factor in _RATES.items()], parse)


def _quantity(value: float, units: Iterable[tuple[str, float]], parse: Callable[[str], float]) -> str | float:
    """The value in the largest unit in which it is short and exact, else the bare number in base units."""
    for unit, factor in units:
        text = f"{value / factor:g} {unit}"
        if value >= factor and parse(text) == value:
            return text
    return value
