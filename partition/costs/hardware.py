"""Devices and links: what the planner prices against, each figure with the place it comes from."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import yaml

from partition.config import ClusterConfig, DeviceConfig, LinksConfig
from partition.costs.allocator import EXACT, AllocatorRules, DeviceRoom, cuda_rules
from partition.costs.profile import Profile
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
    """What may be allocated; on CUDA less than there is, see `room`."""
    flop_per_s: float
    """In the experiment's number format."""
    memory_bytes_per_s: float
    source: str
    """Where the two rates come from."""
    profile: Profile | None = None
    """Measured costs, which take the place of the two rates."""
    rules: AllocatorRules = EXACT
    room: DeviceRoom | None = None
    """Of a GPU: where the rest of its memory goes."""
    is_compute_known: bool = True
    """`flop_per_s` is the experiment's or the data sheet's, not assumed."""

    @cached_property
    def rates(self) -> tuple[float, float, bool, Profile | None]:
        """What distinguishes devices by speed."""
        return (self.flop_per_s, self.memory_bytes_per_s, self.is_compute_known, self.profile)

    @cached_property
    def figures(self) -> tuple[object, ...]:
        """What distinguishes devices for the planner."""
        return (self.kind, self.memory_bytes, *self.rates)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Devices in the order given, and the links between them."""

    devices: tuple[Device, ...]
    links: LinksConfig
    bandwidth_factor: float = 1.0
    """By which every link is faster than it was said or measured to be; latencies are as they are."""
    order: tuple[int, ...] | None = None
    """Where the devices stand in another order than the experiment's: the index there of each, which its links have."""

    def arranged(self, order: Sequence[int]) -> Cluster:
        """Some of the devices in another order, with the links that they have."""
        return replace(self, devices=tuple(self.devices[index] for index in order), order=tuple(order))

    def _pair(self, source: int, destination: int) -> tuple[int, int]:
        """Two devices by their index in the experiment."""
        return (source, destination) if self.order is None else (self.order[source], self.order[destination])

    @cached_property
    def alone(self) -> Cluster:
        """What its devices take where only one of them computes: less only where that was measured."""
        if self._profile is None:
            return self
        profile = self._profile.alone
        return replace(self, devices=tuple(replace(device, profile=profile) for device in self.devices))

    @property
    def rules(self) -> AllocatorRules:
        """Of all devices: where kinds are mixed, every one is counted as the strictest of them counts."""
        kinds = {device.rules for device in self.devices}
        return kinds.pop() if len(kinds) == 1 else AllocatorRules.strictest(kinds)

    @cached_property
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
        key = source, destination, num_bytes
        if key not in self._transfers_s:
            self._transfers_s[key] = self._transfer_s(*key)
        return self._transfers_s[key]

    @cached_property
    def _transfers_s(self) -> dict[tuple[int, int, int], float]:
        """Those that were asked for: a search asks for few, and often."""
        return {}

    def _transfer_s(self, source: int, destination: int, num_bytes: int) -> float:
        source, destination = self._pair(source, destination)
        measured_s = self._profile.transfer_s(source, destination, num_bytes) if self._profile else None
        if measured_s is not None and self._profile:
            latency_s = self._profile.transfer_s(source, destination, 0) or 0.0
            return self._faster(measured_s, latency_s)
        link = self.links.between(source, destination)
        return link.latency_s + num_bytes / (link.bytes_per_s * self.bandwidth_factor)

    def link_kind(self, source: int, destination: int) -> tuple[int, int]:
        """The first pair of devices between which a message takes as long as between these."""
        if self._profile is not None or (self.order is not None and self.links.inter_node is not None):
            return source, destination
        per_node = self.links.devices_per_node
        if self.links.inter_node is None or per_node is None:
            return 0, 1
        is_same_node = source // per_node == destination // per_node
        return (0, 1) if is_same_node and per_node > 1 else (0, per_node)

    def transfer_figures(self, source: int, destination: int) -> Hashable:
        """What `transfer_s` between two devices follows from, besides the bytes."""
        if self._profile is not None:
            return self._profile, self._pair(source, destination), self.bandwidth_factor
        link = self.links.between(*self._pair(source, destination))
        return link.latency_s, link.bytes_per_s * self.bandwidth_factor

    def sum_s(self, devices: Sequence[int], tensor_bytes: Sequence[int]) -> float:
        """Seconds to add up tensors that each of the devices has, around a ring (Patarasuk and Yuan 2009)."""
        count, num_bytes = len(devices), sum(tensor_bytes)
        measured_s = self._profile.sum_s(count, tensor_bytes) if self._profile else None
        if measured_s is not None and self._profile:
            return self._faster(measured_s, self._profile.sum_s(count, [0] * len(tensor_bytes)) or 0.0)
        links = [(devices[place], devices[(place + 1) % count]) for place in range(count)]
        return 2 * (count - 1) * max(self.transfer_s(*link, -(-num_bytes // count)) for link in links)

    def _faster(self, measured_s: float, latency_s: float) -> float:
        """What was measured, on links faster by the factor: what bytes take is divided by it."""
        if self.bandwidth_factor == 1.0:
            return measured_s
        return latency_s + max(0.0, measured_s - latency_s) / self.bandwidth_factor

    def posting_s(self, num_bytes: int) -> tuple[float, float]:
        """Seconds that posting a send, and a receive, take of their ranks; nothing unless measured."""
        return self._profile.posting_s(num_bytes) if self._profile else (0.0, 0.0)

    @property
    def step_end_s(self) -> float:
        """Seconds that a rank needs at the end of a step besides its actions; nothing unless measured."""
        return self._profile.step_end_s if self._profile else 0.0

    @property
    def _profile(self) -> Profile | None:
        return self.devices[0].profile

    @property
    def cost_source(self) -> str:
        """Where the prices of this cluster come from, in words."""
        if self._profile is not None:
            unmeasured = self._profile.unmeasured(len(self.devices))
            return self._profile.cost_source + (f", {unmeasured}" if unmeasured else "")
        sources = sorted({device.source for device in self.devices})
        if self.links.is_default and len(self.devices) > 1:
            sources.append("assumed links")
        return ", ".join(sources)


def build_cluster(
    config: ClusterConfig, number_format: str, profile: Profile | None = None, *, needs_rates: bool = True
) -> Cluster:
    """The devices of an experiment with every figure resolved for one number format.

    A profile takes the place of all rates. Where seconds are measured otherwise, rates are not needed: those of no
    device are refused for being unknown. Raises PartitionError where a figure is missing, and where the profile is of
    other devices.
    """
    counts: Counter[str] = Counter()
    num_cpu = sum(device.kind == "cpu" for device in config.devices)
    devices = []
    for device in config.devices:
        name = f"{device.kind}:{counts[device.kind]}"
        counts[device.kind] += 1
        resolved = _resolve(device, name, number_format, num_cpu, needs_rates)
        devices.append(_with_allocator(resolved, device, config, number_format) if device.kind == "cuda" else resolved)
    if profile is not None:
        _check_profile(profile, devices, number_format)
        devices = [replace(device, profile=profile) for device in devices]
    return Cluster(devices=tuple(devices), links=config.links)


def _check_profile(profile: Profile, devices: Sequence[Device], number_format: str) -> None:
    """Costs of one kind of device, in one number format, are those of no other."""
    file = profile.file
    others = [device for device in devices if device.kind not in (file.kind, "simulated")]
    if others:
        raise PartitionError(
            f"planner.costs: {profile.path} was measured on {file.kind} devices, and {others[0].name} is of kind "
            f"{others[0].kind}; measure there with `partition profile`, or remove planner.costs"
        )
    if file.number_format != number_format:
        raise PartitionError(
            f"planner.costs: {profile.path} is in {file.number_format}, precision.compute is {number_format}; "
            "measure this experiment with `partition profile`"
        )
    if len({device.rates for device in devices}) > 1:
        raise PartitionError(
            "planner.costs: the file has the costs of one kind of device, cluster.devices has several; remove it, or "
            "give all devices the same rates"
        )


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


def _with_allocator(device: Device, config: DeviceConfig, cluster: ClusterConfig, number_format: str) -> Device:
    """A GPU as its caching allocator and its driver leave it."""
    capability = str(_data_sheet(config.name)["capability"]) if config.name else None
    room = DeviceRoom(
        reported_bytes=device.memory_bytes,
        headroom_bytes=math.ceil(device.memory_bytes * cluster.headroom_of_cuda),
        context_bytes=cluster.context_bytes_of_cuda,
    )
    room.check(device.name)
    rules = cuda_rules(capability, number_format, os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
    return replace(device, memory_bytes=room.allocatable_bytes, rules=rules, room=room)


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
