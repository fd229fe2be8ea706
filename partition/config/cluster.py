"""The cluster of an experiment: its devices, one record each, and the links between them, in base units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from partition.config.section import Conflict, Section

DeviceKind = Literal["simulated", "cpu", "cuda"]
RateFormat = Literal["default", "float64", "float32", "tf32", "bfloat16", "float16"]

LARGEST_DEVICE_COUNT = 1024
LARGEST_MEMORY_BYTES = 2**60
DEFAULT_HEADROOM = 0.03
DEFAULT_CONTEXT_BYTES = 800 * 2**20
"""736 to 750 MiB were seen on an H200 while it trained (docs/results/cuda_costs.json), 612 before the first step."""

Rate = Annotated[float, Field(gt=0, le=1e24, allow_inf_nan=False)]
Latency = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=100)]


def _freeze_rates(rates: object) -> object:
    return tuple(sorted(rates.items())) if isinstance(rates, Mapping) else rates


_Rates = BeforeValidator(_freeze_rates)


class DeviceConfig(Section):
    """One device. What is None is taken from the named device, or measured, by whoever needs it."""

    name: Text | None = None
    """A device of the device file, such as H100-SXM-80GB."""
    kind: DeviceKind
    """Where its tensors live; `cuda` for a named device unless said otherwise."""
    memory_bytes: Annotated[int, Field(ge=1, le=LARGEST_MEMORY_BYTES)] | None = None
    flop_per_s: Annotated[tuple[tuple[RateFormat, Rate], ...], _Rates, Field(min_length=1)] | None = None
    """Pairs of number format and rate (a mapping is accepted); `default` stands for every format not listed."""
    memory_bytes_per_s: Rate | None = None

    def flop_per_s_for(self, number_format: str) -> float | None:
        """Its rate in a number format: that format's own figure, or else the one for all, or else None."""
        rates: dict[str, float] = dict(self.flop_per_s or ())
        return rates.get(number_format, rates.get("default"))

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """A simulated device has no memory but what is written."""
        has_memory = given.get("name") is not None or given.get("memory_bytes") is not None
        if given.get("kind") == "simulated" and not has_memory:
            yield Conflict("memory", "is missing; a simulated device needs a limit, for example `memory: 76 MiB`")

    @model_validator(mode="before")
    @classmethod
    def _default_kind(cls, given: object) -> object:
        is_named = isinstance(given, Mapping) and given.get("name") is not None
        return {"kind": "cuda", **given} if isinstance(given, Mapping) and is_named else given


class LinkConfig(Section):
    """What a message costs: seconds = latency_s + bytes / bytes_per_s, in each direction at once."""

    bytes_per_s: Rate = 10e9
    latency_s: Latency = 20e-6


class LinksConfig(Section):
    """Links within a node and, where there is more than one node, between nodes of `devices_per_node` devices each."""

    intra_node: LinkConfig = LinkConfig()
    inter_node: LinkConfig | None = None
    devices_per_node: Annotated[int, Field(ge=1, le=LARGEST_DEVICE_COUNT)] | None = None

    @property
    def is_default(self) -> bool:
        """Whether nothing was said about the links, so that the figures are assumed."""
        return not self.model_fields_set

    def between(self, i: int, j: int) -> LinkConfig:
        """The link between the devices of index i and j."""
        if self.inter_node is None or self.devices_per_node is None:
            return self.intra_node
        is_same_node = i // self.devices_per_node == j // self.devices_per_node
        return self.intra_node if is_same_node else self.inter_node

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """Links between nodes and the size of a node go together."""
        has_inter_node = given.get("inter_node") is not None
        has_node_size = given.get("devices_per_node") is not None
        if has_inter_node and not has_node_size:
            yield Conflict("devices_per_node", "is missing; inter_node needs it, for example `devices_per_node: 8`")
        if has_node_size and not has_inter_node:
            yield Conflict("inter_node", "is missing; devices_per_node is of use only with links between nodes")


class ClusterConfig(Section):
    """The devices, alike ones in the order in which stages are laid on them, and their links."""

    devices: Annotated[tuple[DeviceConfig, ...], Field(min_length=1, max_length=LARGEST_DEVICE_COUNT)]
    links: LinksConfig = LinksConfig()
    headroom: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)] | None = None
    """The share of a GPU's memory that is left free; None: 3%."""
    context_bytes: Annotated[int, Field(ge=0, le=LARGEST_MEMORY_BYTES)] | None = None
    """What a GPU's driver takes for a process outside torch's allocator; None: 800 MiB."""

    @property
    def headroom_of_cuda(self) -> float:
        """The share to be left free of every GPU."""
        return DEFAULT_HEADROOM if self.headroom is None else self.headroom

    @property
    def context_bytes_of_cuda(self) -> int:
        """Bytes of every GPU for the driver's context."""
        return DEFAULT_CONTEXT_BYTES if self.context_bytes is None else self.context_bytes

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """Both are of GPUs alone: elsewhere the memory of a device is what its buffers may take."""
        devices = given.get("devices")
        listed = devices if isinstance(devices, tuple | list) else ()
        kinds = [device.get("kind", "cuda") for device in listed if isinstance(device, Mapping)]
        for key, field in (("headroom", "headroom"), ("context", "context_bytes")):
            if kinds and "cuda" not in kinds and given.get(field) is not None:
                yield Conflict(key, "is for devices of kind cuda, and there are none; remove it")
