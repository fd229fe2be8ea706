"""The splits of a shape over its devices, in every order of unlike ones that is tried; why a shape has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from partition.config import AnyConfig
from partition.costs import Cluster, CostSource
from partition.plan.candidate import Candidate
from partition.plan.orders import Orders, device_orders, figures_of, given_order, on_devices
from partition.plan.pinned_orders import pinned_orders
from partition.plan.pricing import Pricing
from partition.plan.shape import Shape, placement_of
from partition.plan.split import Segment
from partition.plan.splitter import Splitter
from partition.plan.stage_needs import StageNeeds
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
        self._needs = StageNeeds(self.costs)

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
        if order is None:
            return Splitter(cluster, self.costs, share, self.sums, self.constraints, self._needs)
        on = self.constraints.on(order)
        return Splitter(cluster.arranged(order), self.costs, share, self.sums, on, self._needs)

    # Orders of devices

    def orders_of(self, shape: Shape) -> Orders:
        """The orders of unlike devices that are tried for a shape; of like ones there is one."""
        return self._orders(shape.num_replicas, shape.num_ranks, placement_of(shape) if self.constraints.pins else ())

    def orders_tried(self, shape: Shape) -> Sequence[tuple[int, ...] | None]:
        """None for the devices as they are."""
        return self.orders_of(shape).tried if self.has_unlike_devices else (None,)

    def first_order(self, shape: Shape) -> tuple[int, ...] | None:
        """The order that is looked at where one has to do: that of the experiment, unless pins ask for another."""
        return self.orders_of(shape).tried[0] if self.constraints.pins else None

    def _make_orders(self, num_replicas: int, num_ranks: int, placement: tuple[int, ...]) -> Orders:
        """Of the devices of one replica; without replicas, of so many of all devices. `placement`: under pins."""
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
        speeds, memory = [device.flop_per_s for device in devices], [device.memory_bytes for device in devices]
        if placement:
            return pinned_orders(self.constraints, placement, kinds, figures_of(speeds, memory) * (not self.is_large))
        if self.is_large:
            return given_order(kinds, num_ranks)
        return device_orders(kinds, num_ranks, speeds, memory)

    # Refusals

    def has_layout(self, shape: Shape) -> bool:
        """Whether there are layers, examples and devices enough."""
        return not self._no_layout(shape)

    def _no_layout(self, shape: Shape) -> str:
        layers, devices = self.costs.num_layers, len(self.cluster.devices)
        if shape.num_stages > layers:
            return f"{shape.num_stages} stages, but the network has {layers} layers; take num_stages <= {layers}"
        constrained = self.constraints_refusal(shape)
        if constrained and shape.num_ranks * shape.num_replicas <= devices:
            return constrained
        if shape.num_ranks * shape.num_replicas > devices:
            most = devices // shape.num_replicas * (shape.num_stages // shape.num_ranks)
            replicas = f" for {shape.num_replicas} replicas" if shape.num_replicas > 1 else ""
            return (
                f"{shape.num_ranks * shape.num_replicas} devices are needed{replicas}, there are {devices}; take "
                f"num_stages <= {most}"
            )
        return self._sizes.refusal(shape.sizes) or self._too_large(shape.num_ranks, range(devices))

    def constraints_refusal(self, shape: Shape) -> str:
        """Why no split of a shape over several devices honours the constraints; empty where one does."""
        of, blocks = self.constraints, len(self.constraints.blocks)
        if shape.num_stages > blocks:
            return (
                f"{shape.num_stages} stages, but layers kept together leave {blocks} part{'s' * (blocks > 1)}; take "
                f"num_stages <= {blocks}"
            )
        if not of.pins:
            return ""
        if shape.num_replicas > 1:
            return f"each of {shape.num_replicas} replicas would have all layers, with {self._pinned_in_words}"
        if len(of.pinned_devices) > shape.num_ranks:
            return (
                f"layers are pinned to {len(of.pinned_devices)} devices, {shape.num_ranks} take part; take num_stages "
                f">= {len(of.pinned_devices)}"
            )
        orders = self.orders_of(shape)
        if orders.tried:
            return ""
        which = "no order" if orders.is_exhaustive else "none of the orders that were tried"
        split = f"has a split into {shape.num_stages} stages"
        return f"{which} of {shape.num_ranks} devices {split} with {self._pinned_in_words}"

    def alone_refusal(self, device: int) -> str:
        """Why one device may not hold all layers; empty where it may."""
        elsewhere = [pin for pin in self.constraints.pins if pin.device != device]
        if not elsewhere:
            return ""
        return f"would have all layers on {self.device_names[device]}, with {self._pinned_in_words}"

    def too_large_together(self, shape: Shape) -> str:
        """Which layers that one stage has to hold are too many for a device even alone, and what would do."""
        needs = list(self.constraints.needs(shape.num_stages))
        if not needs:
            return ""
        limits, layout = [device.memory_bytes for device in self.cluster.devices], self._shapes_layouts(shape)[0]
        largest = limits.index(max(limits))
        held = self._needs.under(layout).ranks.largest
        for run, pinned, stages in needs:
            least = min(held(index, *run) for index in stages)
            on = largest if pinned is None else pinned
            if least > limits[on]:
                name = self.device_names[on]
                where = f"the largest device, {name}," if pinned is None else name
                needed = f"{run.in_words}, kept in one stage, need {format_bytes(least)} ({least} bytes)"
                return f"{needed} with no other layer in it, {where} has {format_bytes(limits[on])}"
        return ""

    @property
    def _pinned_in_words(self) -> str:
        return replace(self.constraints, together=()).in_words(self.device_names)

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
        splitter = self._splitter(shape, self.first_order(shape))
        runs = 1 if self.constraints.pins else len(set(splitter.first_alike))
        # A stage begins at the first layer of a block, and ends at any layer until it is asked.
        if len(self.constraints.blocks) * self.costs.num_layers * shape.num_stages * runs <= MOST_SPLIT_WORK:
            return False
        return not splitter.unlimited(placement_of(shape), shape.sizes[0])

    def _too_much(self, fastest: Candidate) -> str:
        return (
            f"{fastest.reason.removesuffix(', on the split that comes closest')}, on the fastest split; those that may "
            f"fit are too many to search with {self.costs.num_layers:,} layers in {fastest.num_stages} stages"
        )
