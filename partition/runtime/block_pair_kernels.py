"""The operators of a Hessian-vector product through blocks meet their kernels; see `partition.runtime.second_order`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from partition.graph.pair_operators import (
    PairAccumulate,
    PairAddInputGrad,
    PairGated,
    PairGatedGrad,
    PairLoad,
    PairNormalise,
    PairNormGrad,
    PairRescale,
)
from partition.ops import block_pairs as pairs
from partition.ops.pairs import add_input_grad_pair
from partition.ops.sums import sum_rows

if TYPE_CHECKING:
    from partition.runtime.second_order import SecondOrderStage
    from partition.runtime.stage import Frame


def _load(stage: SecondOrderStage, instruction: PairLoad, frame: Frame) -> None:
    del stage
    assert frame.feed is not None, "the first stage is fed"
    into_2BI = frame.tensors[instruction.into.name]
    frame.feed("x", frame.microbatch, into_2BI[: frame.rows])
    into_2BI[frame.rows :].zero_()


def _normalise(stage: SecondOrderStage, instruction: PairNormalise, frame: Frame) -> None:
    norm, x, n, statistics = instruction
    of, along, n_2BD = stage.layers[norm.index], stage.directions[norm.index], frame.tensors[n.name]
    statistics_3B = frame.tensors[statistics.name].view(3, -1)
    pairs.standardise_pair(frame.tensors[x.name], norm.has_mean, norm.eps, n_2BD, statistics_3B)
    pairs.rescale_pair(n_2BD, of.weight_OI, of.bias_O, along.weight_OI, along.bias_O)


def _norm_grad(stage: SecondOrderStage, instruction: PairNormGrad, frame: Frame) -> None:
    norm, *variables, has_input_grad = instruction
    x_2BD, standardised_2BD, grad_2BD, product_BD, statistics, sums_D = (frame.tensors[one.name] for one in variables)
    of, along, statistics_5B = stage.layers[norm.index], stage.directions[norm.index], statistics.view(5, -1)
    is_first = frame.is_first and not stage.is_adding
    pairs.standardise_pair(x_2BD, norm.has_mean, norm.eps, standardised_2BD, statistics_5B)
    pairs.norm_weight_grad_pair(standardised_2BD, grad_2BD, is_first, of.grad_weight_OI, product_BD, sums_D)
    if of.grad_bias_O is not None:
        sum_rows(grad_2BD[: frame.rows], is_first, of.grad_bias_O, sums_D)
    if has_input_grad:
        pairs.norm_input_grad_pair(
            standardised_2BD, grad_2BD, of.weight_OI, along.weight_OI, norm.has_mean, product_BD, statistics_5B
        )


def _rescale(stage: SecondOrderStage, instruction: PairRescale, frame: Frame) -> None:
    norm, n = instruction
    of, along = stage.layers[norm.index], stage.directions[norm.index]
    pairs.rescale_pair(frame.tensors[n.name], of.weight_OI, of.bias_O, along.weight_OI, along.bias_O)


def _gated(stage: SecondOrderStage, instruction: PairGated, frame: Frame) -> None:
    del stage
    _, a, b, h = instruction
    pairs.gated_pair(frame.tensors[a.name], frame.tensors[b.name], frame.tensors[h.name])


def _gated_grad(stage: SecondOrderStage, instruction: PairGatedGrad, frame: Frame) -> None:
    _, *variables, workspaces = instruction
    spaces = [frame.tensors[one.name] for one in workspaces]
    a, b, grad, grad_a = (frame.tensors[one.name] for one in variables)
    pairs.gated_grad_pair(a, b, grad, grad_a, spaces, stage.number)


def _add_input_grad(stage: SecondOrderStage, instruction: PairAddInputGrad, frame: Frame) -> None:
    layer, grad_z, grad_x = instruction
    weight_OI, direction_OI = stage.layers[layer.index].weight_OI, stage.directions[layer.index].weight_OI
    add_input_grad_pair(frame.tensors[grad_z.name], weight_OI, direction_OI, frame.tensors[grad_x.name])


def _accumulate(stage: SecondOrderStage, instruction: PairAccumulate, frame: Frame) -> None:
    del stage
    source, into = (frame.tensors[one.name] for one in instruction)
    into[: source.shape[0]].add_(source)


BLOCK_PAIR_METHODS: dict[type, Callable[[Any, Any, Frame], None]] = {
    PairLoad: _load,
    PairNormalise: _normalise,
    PairNormGrad: _norm_grad,
    PairRescale: _rescale,
    PairGated: _gated,
    PairGatedGrad: _gated_grad,
    PairAddInputGrad: _add_input_grad,
    PairAccumulate: _accumulate,
}
