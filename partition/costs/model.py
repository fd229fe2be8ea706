"""The costs of any run of layers of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from partition.costs.allocator import EXACT, AllocatorRules
from partition.costs.hardware import Cluster, Device
from partition.costs.optimizer import OptimizerRecord
from partition.costs.stage import NetworkStageCost
from partition.graph import Network, Spans

MOST_LAYERS_AT_ONCE = 1000
"""Of a program that is written out for a bound alone."""


class CostModel:
    """Stage costs of a network, each computed once; stages of equal layers share theirs."""

    stage_cost: type[NetworkStageCost] = NetworkStageCost
    """Of what the stages do: a step of training."""
    microbatch_rows: int | None = None
    """Any number of examples can be priced."""
    splits_backward = True
    can_recompute = True

    def __init__(
        self,
        network: Network,
        optimizer: OptimizerRecord,
        itemsize: int,
        rules: AllocatorRules = EXACT,
        *,
        has_noise: bool = False,
        is_mixed: bool = False,
    ) -> None:
        self.network = network
        self.has_noise = has_noise
        """Whether a step measures the noise of the gradient besides."""
        self.is_mixed = is_mixed
        """Whether numbers of `itemsize` bytes are those of the arithmetic alone, parameters and sums being wider."""
        self.optimizer = optimizer
        self.itemsize = itemsize
        self.rules = rules
        self._kinds = tuple(layer.kind for layer in network.layers)
        self._run_ends = _run_ends(self._kinds)
        self._stages: dict[object, NetworkStageCost] = {}

    def _runs(self, first_layer: int, last_layer: int) -> tuple[object, ...]:
        """The layers as runs of equal ones, each with its length: thousands of equal layers make a short key."""
        found: list[object] = []
        while first_layer <= last_layer:
            end = min(self._run_ends[first_layer], last_layer)
            found += (self._kinds[first_layer], end + 1 - first_layer)
            first_layer = end + 1
        return tuple(found)

    @property
    def num_layers(self) -> int:
        """Number of affine layers, or of blocks."""
        return self.network.num_layers

    def stage(self, first_layer: int, last_layer: int, recompute: Spans = ()) -> NetworkStageCost:
        """The costs of layers first_layer..last_layer, inclusive, as one stage that recomputes some of them."""
        is_last = last_layer == self.network.num_layers - 1
        spans = tuple((first - first_layer, last - first_layer) for first, last in recompute)
        key = (first_layer == 0, is_last, self._runs(first_layer, last_layer), spans)
        if key not in self._stages:
            self._stages[key] = self.stage_cost(
                self.network, self.optimizer, self.itemsize, first_layer, last_layer, self.rules, recompute,
                has_noise=self.has_noise, is_mixed=self.is_mixed,
            )  # fmt: skip
        return self._stages[key]

    def least_s(self, num_examples: int, devices: Sequence[Device]) -> float:
        """Seconds that the operators of so many examples take on all devices at their best rates together."""
        kinds = {device.rates: self._least_s(num_examples, device) for device in distinct_rates(devices)}
        return 1 / sum(1 / kinds[device.rates] for device in devices)

    def _least_s(self, num_examples: int, device: Device) -> float:
        """Of all layers on one device: as one stage, or, of very many, as what each and each pair of them adds."""
        layers = self.num_layers
        if layers <= MOST_LAYERS_AT_ONCE:
            return self.stage(0, layers - 1).least_s(num_examples, device)
        of = cache(lambda stage: stage.least_s(num_examples, device))
        pairs_s = math.fsum(of(self.stage(layer, layer + 1)) for layer in range(layers - 1))
        return pairs_s - math.fsum(of(self.stage(layer, layer)) for layer in range(1, layers - 1))

    def origin(self, cluster: Cluster) -> str:
        """The rates of the devices, and the links."""
        return cluster.cost_source


def distinct_rates(devices: Sequence[Device]) -> list[Device]:
    """One device of every speed."""
    return list({device.rates: device for device in devices}.values())


def _run_ends(shapes: Sequence[object]) -> list[int]:
    """For each layer the last one of the run of equal layers that it is in."""
    ends = list(range(len(shapes)))
    for index in range(len(shapes) - 2, -1, -1):
        if shapes[index] == shapes[index + 1]:
            ends[index] = ends[index + 1]
    return ends
