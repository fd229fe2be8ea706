"""What the operators of blocks are in the graph: norms, gates, masks and the sums of residual blocks.

A norm's weight is `w` and its bias `b`: the penalty, which is over every `W`, leaves norms out. The value of a sum is
`r`, that of a dropout `d`, of a norm `n`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from partition.graph.block_operators import (
    Accumulate,
    AddInputGrad,
    Drop,
    Gated,
    GatedGrad,
    Normalise,
    NormGrad,
    Rescale,
)
from partition.graph.computational.described import Described, Surroundings, parameters_of
from partition.graph.computational.nodes import Phase
from partition.graph.layers import Norm
from partition.graph.program import Variable

RESIDUAL_SUM, GRADIENT_SUM, DROPOUT, GATE = "residual sum", "gradient sum", "dropout", "swiglu"
ADDED_GRADIENT = "added input gradient"
NORMS = ("layer_norm", "rms_norm")


def _shapes(norm: Norm) -> dict[str, tuple[int, ...]]:
    return {"w": (norm.features,), **({"b": (norm.features,)} if norm.has_bias else {})}


def _norm(norm: Norm, x: Variable, n: Variable, around: Surroundings) -> Described:
    """A norm's value from its input, or from what stands in the place of it."""
    shapes, bias = _shapes(norm), " + b" if norm.has_bias else ""
    return Described(
        name=norm.algorithm, label="N", formula=f"n = {norm.algorithm}({around.letter(x)}) ⊙ w{bias}",
        phase=Phase.FORWARD, record=norm, reads=(x,), writes=(n,), parameters=tuple(shapes), letter="n", shapes=shapes,
    )  # fmt: skip


def _normalise(operator: Normalise, around: Surroundings) -> Described:
    return _norm(operator.norm, operator.x, operator.n, around)


def _norm_grad(operator: NormGrad, around: Surroundings) -> Described:
    norm, shapes, source = operator.norm, _shapes(operator.norm), around.letter(operator.x)
    to_input = f"∂{source} = {norm.algorithm}'({source}) (∂n ⊙ w),  " if operator.has_input_grad else ""
    bias = ",  ∂b = Σ ∂n" if norm.has_bias else ""
    is_apart = operator.standardised is not operator.x
    # Without an input gradient the gradient stays what it is.
    return Described(
        name=f"{norm.algorithm} gradient", label="N'",
        formula=f"{to_input}∂w = Σ ∂n ⊙ {norm.algorithm}({source}){bias}",
        phase=Phase.INPUT_GRADIENT, record=norm, reads=(operator.grad, operator.x),
        writes=(operator.grad,) * operator.has_input_grad, parameters=("w",) * operator.has_input_grad,
        parameter_gradients=tuple(shapes), shapes=shapes, left=((operator.standardised, operator.x),) * is_apart,
    )  # fmt: skip


def _rescale(operator: Rescale, around: Surroundings) -> Described:
    """From what the gradient has left in the place of the norm's input, or beside it."""
    return _norm(operator.norm, operator.n, operator.n, around)


def _drop(operator: Drop, around: Surroundings) -> Described:
    dropout, source = operator.dropout, around.letter(operator.x)
    scale = f"/ (1 - {dropout.rate:g})"
    if source.startswith("∂"):
        return Described(
            name=f"{DROPOUT} gradient", label="m'", formula=f"∂h = m ⊙ {source} {scale}", phase=Phase.INPUT_GRADIENT,
            record=dropout, reads=(operator.x,), writes=(operator.out,),
        )  # fmt: skip
    return Described(
        name=DROPOUT, label="m", formula=f"d = m ⊙ {source} {scale}", phase=Phase.FORWARD, record=dropout,
        reads=(operator.x,), writes=(operator.out,), letter="d",
    )  # fmt: skip


def _gated(operator: Gated, _: Surroundings) -> Described:
    gate = operator.gate
    a, b = f"z{gate.gate.index}", f"z{gate.up.index}"
    return Described(
        name=GATE, label="⊙", formula=f"h = silu({a}) ⊙ {b}", phase=Phase.FORWARD, record=gate,
        reads=(operator.a, operator.b), writes=(operator.h,), letter="h",
    )  # fmt: skip


def _gated_grad(operator: GatedGrad, _: Surroundings) -> Described:
    gate = operator.gate
    a, b = f"z{gate.gate.index}", f"z{gate.up.index}"
    return Described(
        name=f"{GATE} gradient", label="⊙'", phase=Phase.INPUT_GRADIENT, record=gate,
        formula=f"∂{a} = ∂h ⊙ {b} ⊙ silu'({a}),  ∂{b} = ∂h ⊙ silu({a}),  h again",
        reads=(operator.grad, operator.a, operator.b), writes=(operator.grad_a, operator.grad), again=(operator.a,),
    )  # fmt: skip


def _add_input_grad(operator: AddInputGrad, around: Surroundings) -> Described:
    layer = operator.layer
    _, shapes = parameters_of(layer)
    return Described(
        name=ADDED_GRADIENT, label="×", formula=f"∂h += ∂{around.result(layer)} W",
        phase=Phase.INPUT_GRADIENT, record=layer, reads=(operator.grad_z, operator.grad_x), writes=(operator.grad_x,),
        parameters=("W",), shapes=shapes,
    )  # fmt: skip


def _accumulate(operator: Accumulate, around: Surroundings) -> Described:
    source, into = (around.letter(one) for one in (operator.source, operator.into))
    is_gradient = into.startswith("∂")
    return Described(
        name=GRADIENT_SUM if is_gradient else RESIDUAL_SUM, label="+",
        formula=f"{'∂' + into[1:] if is_gradient else 'r'} = {into} + {source}",
        phase=Phase.INPUT_GRADIENT if is_gradient else Phase.FORWARD, record=None,
        reads=(operator.into, operator.source), writes=(operator.into,), letter="" if is_gradient else "r",
    )  # fmt: skip


BLOCK_DESCRIBERS: Mapping[type, Callable[..., Described]] = MappingProxyType({
    Normalise: _normalise,
    NormGrad: _norm_grad,
    Rescale: _rescale,
    Drop: _drop,
    Gated: _gated,
    GatedGrad: _gated_grad,
    AddInputGrad: _add_input_grad,
    Accumulate: _accumulate,
})  # fmt: skip
