"""The splits of a shape over its devices, in every order of unlike ones that is tried; why a shape has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from partition.config import AnyConfig
from partition.costs import Cluster, CostSource
from partition.plan.candidate import Candidate
from partition.plan.orders import Orders, device_orders, given_order, on_devices
from partition.plan.pricing import Pricing
from partition.plan.shape import Shape, placement_of
from partition.plan.split import Segment
from partition.plan.splitter import Splitter
from partition.units import format_bytes

MOST_SPLIT_WORK = 1_000_000
"""Layers squared times stages times runs of devices that are alike, of a search of splits within memory: a minute."""
Split = tuple[Segment, ...]


class DeviceSplits(Pricing):
    """Where the layers of a shape may be cut, and which device takes which stage."""

    def __init__(self, config: AnyConfig, built: tuple[Cluster, CostSource] | None = None) -> None:
        """`built`: devices and costs of this experiment that are there already."""
        super().__init__(config, built)
        self._splitters = cache(self._make_splitter)
        self._orders = cache(self._make_orders)

    def splits_of(self, shape: Shape) -> list[Split]:
        """The splits that a shape over several devices is priced on, over all orders of devices that are tried."""
        layout = self._shapes_layouts(shape)[0]
        return self._splits(shape, lambda of: of.splits(layout), self.orders_tried(shape))

    def _splits(
        self, shape: Shape, find: Callable[[Splitter], Sequence[Split]], orders: Sequence[tuple[int, ...] | None]
    ) -> list[Split]:
        """What splitters of the devices in some orders find, on the devices of the experiment."""
        found: dict[Split, None] = {}
        for order in orders:
            for split in find(self._splitter(shape, order)):
                found[split if order is None else on_devices(split, order)] = None
        return list(found)

    def _surely_fits(self, shape: Shape) -> bool:
        """Whether the splits of a shape fit whatever is in flight, in every order of devices."""
        splitters = (self._splitter(shape, order) for order in self.orders_tried(shape))
        return all(of.unlimited(placement_of(shape), shape.sizes[0]) for of in splitters)

    def _splitter(self, shape: Shape, order: tuple[int, ...] | None = None) -> Splitter:
        """The splitter of the devices of one replica, as they are or in an order; all schedules share it."""
        return self._splitters(shape.num_replicas, shape.num_ranks, order)

    def _make_splitter(self, num_replicas: int, num_ranks: int, order: tuple[int, ...] | None) -> Splitter:
        share, cluster = -(-self.minibatch_size // num_replicas), self.replica_cluster(num_replicas, num_ranks)
        return Splitter(cluster if order is None else cluster.arranged(order), self.costs, share, self.sums)

    # Orders of devices

    def orders_of(self, shape: Shape) -> Orders:
        """The orders of unlike devices that are tried for a shape; of like ones there is one."""
        return self._orders(shape.num_replicas, shape.num_ranks)

    def orders_tried(self, shape: Shape) -> Sequence[tuple[int, ...] | None]:
        """None for the devices as they are."""
        return self.orders_of(shape).tried if self.has_unlike_devices else (None,)

    def _make_orders(self, num_replicas: int, num_ranks: int) -> Orders:
        """Of the devices of one replica; without replicas, of so many of all devices."""
        devices = self.replica_cluster(num_replicas, num_ranks).devices
        per_node = self.cluster.links.devices_per_node if self.cluster.links.inter_node else None
        kinds = [
            (
                device.figures,
                index if device.profile is not None else None,
                tuple((index + replica * num_ranks) // per_node for replica in range(num_replicas)) if per_node else (),
            )
            for index, device in enumerate(devices)
        ]
        if self.is_large:
            return given_order(kinds, num_ranks)
        speeds, memory = [device.flop_per_s for device in devices], [device.memory_bytes for device in devices]
        return device_orders(kinds, num_ranks, speeds, memory)

    # Refusals

    def has_layout(self, shape: Shape) -> bool:
        """Whether there are layers, examples and devices enough."""
        return not self._no_layout(shape)

    def _no_layout(self, shape: Shape) -> str:
        layers, devices = self.costs.num_layers, len(self.cluster.devices)
        if shape.num_stages > layers:
            return f"{shape.num_stages} stages, but the network has {layers} layers; take num_stages <= {layers}"
        if shape.num_ranks * shape.num_replicas > devices:
            most = devices // shape.num_replicas * (shape.num_stages // shape.num_ranks)
            replicas = f" for {shape.num_replicas} replicas" if shape.num_replicas > 1 else ""
            return (
                f"{shape.num_ranks * shape.num_replicas} devices are needed{replicas}, there are {devices}; take "
                f"num_stages <= {most}"
            )
        return self._sizes.refusal(shape.sizes) or self._too_large(shape.num_ranks, range(devices))

    def _too_large(self, num_ranks: int, devices: Sequence[int]) -> str:
        """Why so many of some devices cannot hold what is held throughout; empty where they may, and in small searches.

        In a large one it saves a look at what does not fit in any case; in a small one the figures of the candidate
        say more.
        """
        if not self.is_large:
            return ""
        available_bytes = (
            self._most_memory(num_ranks) if len(devices) > 1 else self.cluster.devices[devices[0]].memory_bytes
        )
        if self.static_bytes <= available_bytes:
            return ""
        where = "the device has" if num_ranks == 1 else f"{num_ranks} devices have"
        return (
            f"needs {format_bytes(self.static_bytes)} for parameters, gradients and optimizer alone, {where} "
            f"{format_bytes(available_bytes)}"
        )

    def _is_too_much(self, shape: Shape) -> bool:
        """Whether the splits of a shape that fit would take minutes to search, and memory has to be looked at."""
        runs = len(set(self.replica_cluster(shape.num_replicas, shape.num_ranks).first_alike))
        if self.costs.num_layers**2 * shape.num_stages * runs <= MOST_SPLIT_WORK:
            return False
        return not self._splitter(shape).unlimited(placement_of(shape), shape.sizes[0])

    def _too_much(self, fastest: Candidate) -> str:
        return (
            f"{fastest.reason.removesuffix(', on the split that comes closest')}, on the fastest split; those that may "
            f"fit are too many to search with {self.costs.num_layers:,} layers in {fastest.num_stages} stages"
        )
