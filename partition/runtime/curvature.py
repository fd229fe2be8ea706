"""Hessian-vector products of J on the stages of a candidate, and the largest curvature by power iteration.

J = L + s, the mean loss over examples and the penalty lambda/2 ‖W‖²; its Hessian H is that in all parameters together.

    v <- H v / ‖H v‖         until ‖H v - rho v‖ <= tolerance |rho| ‖v‖,  rho = v·H v / v·v

H is symmetric, so some eigenvalue lies within ‖H v - rho v‖ / ‖v‖ of rho, and the largest is at least rho. The
iteration finds the eigenvalue of largest magnitude; where that is negative, a second one on H - rho I finds the
largest. Sums run over tensors in canonical order: the same bits on every rank, whatever it holds.
Source: Pearlmutter 1994; LeCun, Simard and Pearlmutter 1992, *Automatic learning rate maximization*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partition.costs import CostModel, step_flop
from partition.data.rows import Examples
from partition.errors import PartitionError, RunError
from partition.graph import build_second_order_program
from partition.plan import Candidate
from partition.plan.curvature import CurvatureSearch
from partition.record.curvature import ProductCost
from partition.runtime.feed import example_weight
from partition.runtime.parameters import LAYERS_PER_SEED
from partition.runtime.second_order import Measured, SecondOrderStage
from partition.runtime.training import shared_peaks
from partition.runtime.worker import Parts
from partition.runtime.workers import Fleet
from partition.runtime.world import World, share_all, share_largest

LayerTensors = tuple[Tensor, Tensor | None]
"""One tensor of the shape of a layer's weight and one of its bias's."""
Inner = Callable[[SecondOrderStage], tuple[list[Tensor], list[Tensor]]]
"""Which tensors of a stage to multiply with which."""


class CurvatureFleet(Fleet):
    """The ranks of a candidate that live in this process, for products with the Hessian."""

    def __init__(self, search: CurvatureSearch, candidate: Candidate, world: World | None = None) -> None:
        parts = Parts(program=build_second_order_program, stage=SecondOrderStage, update=Measured)
        super().__init__(search, candidate, world, parts)

    def _held(self) -> Iterator[tuple[int, int, Measured]]:
        """Rank, replica and measuring end of every stage that lives here."""
        for worker in self.workers:
            for update in worker.updates.values():
                assert isinstance(update, Measured), "a curvature's workers are made of its own parts"
                yield worker.rank, worker.replica, update

    @torch.no_grad()
    def set_directions(self, directions: Mapping[int, LayerTensors]) -> None:
        """Copy a direction in, by index of layer or norm; those that live elsewhere are not read.

        Raises PartitionError where one is missing, or of another shape than its parameter.
        """
        for _, _, update in self._held():
            for index, along in update.stage.directions.items():
                weight_OI, bias_O = directions.get(index, (None, None))
                _copy_direction(f"weight of layer {index}", weight_OI, along.weight_OI)
                _copy_direction(f"bias of layer {index}", bias_O, along.bias_O)

    @torch.no_grad()
    def draw_directions(self, seed: int) -> None:
        """Normal numbers, drawn layer by layer on the host: the same on any split and any device."""
        for _, _, update in self._held():
            for index, along in update.stage.directions.items():
                generator = torch.Generator().manual_seed(seed * LAYERS_PER_SEED + index)
                for tensor in along.tensors:
                    tensor.copy_(torch.empty(tensor.shape, dtype=tensor.dtype).normal_(generator=generator))

    def products(self) -> dict[int, LayerTensors]:
        """H times the direction, of every layer that lives here: the buffers themselves."""
        return {index: (of.grad_weight_OI, of.grad_bias_O) for index, of in self.layers().items()}

    def product(self, x: Examples, y: Examples, examples: NDArray[np.int64]) -> float:
        """Multiply the direction by the Hessian of J on the given examples, any number; seconds on the devices' clock.

        A minibatch of the candidate at a time: all of them add up, and the penalty enters once.
        """
        start_s, size = self._align_clocks(), self.candidate.minibatch_size
        weight = example_weight(self.search.network.loss, y, examples)
        for start in range(0, len(examples), size):
            for _, replica, update in self._held():
                # What is added over replicas is the first one's sum so far, and the others' part of this minibatch.
                update.stage.is_adding = start > 0 and replica == 0
            self.run_minibatch(x, y, examples[start : start + size], weight)
        for _, _, update in self._held():
            update.add_penalty()
        return self._align_clocks() - start_s

    def inner_products(self, *wanted: Inner) -> list[float]:
        """Inner products over all parameters, known to every rank, summed over tensors in canonical order."""
        plans = [plan for plan in self.candidate.stages if plan.replica_index == 0]
        layers = self.search.network.layers
        stages = [layers[plan.first_layer : plan.last_layer + 1] for plan in plans]
        lengths = [sum(1 + part.has_bias for one in stage for part in one.weighted) for stage in stages]
        of_rank: dict[int, list[list[float]]] = {rank: [] for rank in self.world.ranks}
        for rank, _, update in self._held():
            of_rank[rank].append([dot for pick in wanted for dot in update.dots(*pick(update.stage))])
        width = len(wanted) * sum(lengths)
        numbers = {rank: np.zeros(width) for rank in self.world.ranks}
        for rank, found in of_rank.items():
            flat = np.array([dot for of_stage in found for dot in of_stage])
            numbers[rank][: len(flat)] = flat
        every, starts = share_all(self.world, numbers), dict.fromkeys(range(self.candidate.num_devices), 0)
        totals = [0.0] * len(wanted)
        for plan, length in zip(plans, lengths, strict=True):
            start = starts[plan.rank]
            starts[plan.rank] += length * len(wanted)
            for place in range(len(wanted)):
                of_stage = every[plan.rank][start + place * length : start + (place + 1) * length]
                totals[place] += sum(of_stage.tolist())
        return totals

    @torch.no_grad()
    def subtract(self, factor: float) -> None:
        """H v <- H v - factor v, in the buffers of the product."""
        for _, _, update in self._held():
            for product, direction in zip(update.stage.products, update.stage.direction_tensors, strict=True):
                product.add_(direction, alpha=-factor)

    @torch.no_grad()
    def turn(self, factor: float, norm: float) -> None:
        """V <- (what the product's buffers hold + factor v) / norm."""
        for _, _, update in self._held():
            stage = update.stage
            for product, direction in zip(stage.products, stage.direction_tensors, strict=True):
                direction.mul_(stage.number.fill_(factor / norm)).add_(product, alpha=1.0 / norm)


def _copy_direction(name: str, given: Tensor | None, into: Tensor | None) -> None:
    found, wanted = (None if of is None else tuple(of.shape) for of in (given, into))
    if found != wanted:
        raise PartitionError(
            f"the direction of the {name} has shape {found}, the parameter {wanted}; give a tensor of the parameter's "
            "shape, None where there is no parameter"
        )
    if given is not None and into is not None:
        into.copy_(given)


def of_directions(stage: SecondOrderStage) -> tuple[list[Tensor], list[Tensor]]:
    """v·v."""
    return stage.direction_tensors, stage.direction_tensors


def of_products(stage: SecondOrderStage) -> tuple[list[Tensor], list[Tensor]]:
    """‖H v‖², or of whatever the product's buffers hold."""
    return stage.products, stage.products


def of_both(stage: SecondOrderStage) -> tuple[list[Tensor], list[Tensor]]:
    """v·H v."""
    return stage.direction_tensors, stage.products


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """The largest eigenvalue of the Hessian of J, as far as power iteration has found it."""

    eigenvalue: float
    """v·H v / v·v: the largest eigenvalue is at least this."""
    residual: float
    """‖H v - eigenvalue v‖ / ‖v‖: some eigenvalue is no further away than this."""
    is_converged: bool
    """The residual is at most the tolerance times the eigenvalue's magnitude."""
    num_products: int
    """Hessian-vector products computed."""
    most_negative: float | None
    """The eigenvalue of largest magnitude, where that is negative."""
    product_s: float
    """The median of all products, on the clock of the devices."""
    stop_signal: int
    """The signal that ended the iteration; 0 where none did."""


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """One step of the iteration."""

    product: int
    eigenvalue: float
    residual: float
    seconds: float


def largest_curvature(
    fleet: CurvatureFleet,
    x: Examples,
    y: Examples,
    examples: NDArray[np.int64],
    *,
    tolerance: float = 1e-2,
    max_products: int = 200,
    seed: int = 0,
    observe: Callable[[Iterate], None] = lambda _: None,
    stop_signal: Callable[[], int] = lambda: 0,
) -> Curvature:
    """The largest eigenvalue of the Hessian of J on the given examples, by power iteration from a drawn direction.

    Where `stop_signal` says on any rank that it has been asked to stop, all end after the same product.

    Raises RunError where a value is not finite.
    """
    # Another seed than that of the initial weights, which may be those in use.
    fleet.draw_directions(seed + 1)
    shift, most_negative, is_converged, stopped = 0.0, None, False, 0
    seconds: list[float] = []
    one = Iterate(product=0, eigenvalue=0.0, residual=math.inf, seconds=0.0)
    while len(seconds) < max_products and not is_converged and not stopped:
        one = _iterate(fleet, len(seconds) + 1, shift, lambda: fleet.product(x, y, examples))
        seconds.append(one.seconds)
        observe(one)
        stopped = int(share_largest(fleet.world, [stop_signal()])[0])
        is_converged = one.residual <= tolerance * max(abs(one.eigenvalue), abs(shift))
        if is_converged and one.eigenvalue < 0 and shift == 0.0:
            shift = most_negative = one.eigenvalue
            fleet.draw_directions(seed + 1)
            is_converged = False
    return Curvature(
        eigenvalue=one.eigenvalue,
        residual=one.residual,
        is_converged=is_converged,
        num_products=len(seconds),
        most_negative=most_negative,
        product_s=float(np.median(seconds)),
        stop_signal=stopped,
    )


def _iterate(fleet: CurvatureFleet, number: int, shift: float, product: Callable[[], float]) -> Iterate:
    """One product, what it says of the direction, and the next direction."""
    seconds = product()
    square, along = fleet.inner_products(of_directions, of_both)
    eigenvalue = along / square
    if not math.isfinite(eigenvalue):
        raise RunError(
            f"product {number} with the Hessian: v·H v is {along} and v·v is {square}; the parameters or the data hold "
            "values that are not finite or too large"
        )
    fleet.subtract(eigenvalue)
    (left,) = fleet.inner_products(of_products)
    norm = math.sqrt(left + (eigenvalue - shift) ** 2 * square)
    if norm > 0.0:  # where H v is 0, v is an eigenvector of 0
        fleet.turn(eigenvalue - shift, norm)
    return Iterate(product=number, eigenvalue=eigenvalue, residual=math.sqrt(left / square), seconds=seconds)


def product_cost(fleet: CurvatureFleet, measured_s: float) -> ProductCost:
    """What a product takes of one minibatch: predicted, and with `measured_s` and the ledgers measured."""
    search, candidate = fleet.search, fleet.candidate
    assert candidate.predicted is not None, "what runs has a layout"
    model = search.model
    of_training = CostModel(model.network, model.optimizer, model.itemsize, model.rules)
    sizes = [rows for layout in search.layouts(candidate) for rows in layout.sizes]
    gradient_flop, product_flop = step_flop(of_training, sizes), step_flop(model, sizes)
    return ProductCost(
        gradient_flop=gradient_flop,
        product_flop=product_flop,
        flop_ratio=product_flop / gradient_flop,
        predicted_s=candidate.predicted.step_s,
        measured_s=measured_s,
        clock="simulated" if fleet.has_simulated_clock else "wall",
        predicted_peak_bytes=candidate.predicted.peak_bytes,
        measured_peak_bytes=tuple(shared_peaks(fleet)),
    )
