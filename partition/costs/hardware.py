"""Devices and links: what the planner prices against, each figure with the place it comes from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from partition.config import ClusterConfig, DeviceConfig, LinksConfig
from partition.errors import PartitionError
from partition.units import parse_bytes, parse_bytes_per_s, parse_flop_per_s

# For simulated devices and CPUs whose speed the experiment leaves out: the order of two cores of a server.
ASSUMED_FLOP_PER_S = 100e9
ASSUMED_MEMORY_BYTES_PER_S = 20e9


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where the tensors of one stage live."""

    name: str
    """Kind and index, as in cuda:0."""
    kind: str
    """simulated, cpu or cuda."""
    memory_bytes: int
    flop_per_s: float
    """In the experiment's number format."""
    memory_bytes_per_s: float
    source: str
    """Where the two rates come from."""
    is_compute_known: bool = True
    """`flop_per_s` is the experiment's or the data sheet's, not assumed."""

    @property
    def figures(self) -> tuple[str, int, float, float, bool]:
        """What distinguishes devices for the planner."""
        return (self.kind, self.memory_bytes, self.flop_per_s, self.memory_bytes_per_s, self.is_compute_known)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Devices in the order given, and the links between them."""

    devices: tuple[Device, ...]
    links: LinksConfig

    @property
    def first_alike(self) -> tuple[int, ...]:
        """For each device the first of its run of neighbours that differ in nothing: any of a run will do."""
        firsts: list[int] = []
        for index, device in enumerate(self.devices):
            before = self.devices[index - 1]
            is_alike = index > 0 and device.figures == before.figures and self.links.inter_node is None
            firsts.append(firsts[-1] if is_alike else index)
        return tuple(firsts)

    def transfer_s(self, source: int, destination: int, num_bytes: int) -> float:
        """Seconds a message occupies the link between two devices, latency included."""
        link = self.links.between(source, destination)
        return link.latency_s + num_bytes / link.bytes_per_s

    def sum_s(self, devices: Sequence[int], num_bytes: int) -> float:
        """Seconds to add up a buffer that each of the devices has, around a ring (Patarasuk and Yuan 2009)."""
        count = len(devices)
        links = [(devices[place], devices[(place + 1) % count]) for place in range(count)]
        return 2 * (count - 1) * max(self.transfer_s(*link, -(-num_bytes // count)) for link in links)

    @property
    def cost_source(self) -> str:
        """Where the prices of this cluster come from, in words."""
        sources = sorted({device.source for device in self.devices})
        if self.links.is_default and len(self.devices) > 1:
            sources.append("assumed links")
        return ", ".join(sources)


def build_cluster(config: ClusterConfig, number_format: str, *, needs_rates: bool = True) -> Cluster:
    """The devices of an experiment with every figure resolved for one number format.

    Where seconds are measured, rates are not needed: those of no device are refused for being unknown.
    """
    counts: Counter[str] = Counter()
    num_cpu = sum(device.kind == "cpu" for device in config.devices)
    devices = []
    for device in config.devices:
        name = f"{device.kind}:{counts[device.kind]}"
        counts[device.kind] += 1
        devices.append(_resolve(device, name, number_format, num_cpu, needs_rates))
    return Cluster(devices=tuple(devices), links=config.links)


def _resolve(config: DeviceConfig, name: str, number_format: str, num_cpu: int, needs_rates: bool) -> Device:
    sheet = _data_sheet(config.name) if config.name else None
    memory_bytes = config.memory_bytes
    if memory_bytes is None:
        memory_bytes = parse_bytes(sheet["memory"]) if sheet else _host_memory_bytes(config.kind, name, num_cpu)
    flop_per_s = config.flop_per_s_for(number_format)
    if flop_per_s is None and sheet:
        flop_per_s = parse_flop_per_s(sheet["compute"][number_format])
    memory_bytes_per_s = config.memory_bytes_per_s
    if memory_bytes_per_s is None and sheet:
        memory_bytes_per_s = parse_bytes_per_s(sheet["memory_bandwidth"])
    is_assumed = flop_per_s is None or memory_bytes_per_s is None
    if is_assumed and config.kind == "cuda" and needs_rates:
        raise PartitionError(
            f"cluster.devices: {name} has neither a name nor both `compute` and `memory_bandwidth`; "
            f"give them, or name the device: {', '.join(_data_sheets())}"
        )
    return Device(
        name=name,
        kind=config.kind,
        memory_bytes=memory_bytes,
        flop_per_s=flop_per_s or ASSUMED_FLOP_PER_S,
        memory_bytes_per_s=memory_bytes_per_s or ASSUMED_MEMORY_BYTES_PER_S,
        source=_source(config, sheet is not None, is_assumed),
        is_compute_known=flop_per_s is not None,
    )


def _source(config: DeviceConfig, has_sheet: bool, is_assumed: bool) -> str:
    if is_assumed:
        return "assumed rates (100 GFLOP/s, 20 GB/s)"
    if has_sheet and (config.memory_bytes_per_s is None or config.flop_per_s is None):
        return f"data sheet of {config.name}"
    return "rates of the experiment file"


def _host_memory_bytes(kind: str, name: str, num_cpu: int) -> int:
    if kind != "cpu":
        raise PartitionError(f"cluster.devices: {name} has no memory; give `memory: 76 MiB`, or `name` a known device")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // num_cpu


@cache
def _data_sheets() -> Mapping[str, Any]:
    text = files("partition.costs").joinpath("devices.yaml").read_text(encoding="utf-8")
    sheets: Mapping[str, Any] = yaml.safe_load(text)
    return sheets


def _data_sheet(name: str) -> Mapping[str, Any]:
    sheets = _data_sheets()
    if name not in sheets:
        raise PartitionError(f"cluster.devices.name: unknown device {name!r}; known are {', '.join(sheets)}")
    sheet: Mapping[str, Any] = sheets[name]
    return sheet
