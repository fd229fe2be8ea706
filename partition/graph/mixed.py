"""Steps in two number formats: arithmetic and activations in a narrow one, parameters and sums in a wide one.

    narrow (bfloat16)    activations and their gradients, messages, the operands and results of products
    wide (float32)       parameters, gradients of parameters, optimizer; the loss, norms and their statistics

    Affine x -> z        Take w   CastWeights -> w   Affine x, w -> z   Give w
    InputGrad            the same
    WeightGrad           Take p   WeightProduct x, g -> p   Take piece   AddProduct p   Give p, piece
    norms                in wide workspaces; x̂ is rounded before it is scaled, so that W gets it with the same bits

A layer's weight in the narrow format is a temporary of each use, not kept beside the parameters: only one is alive at a
time, none has to be brought up to date when parameters change, and the bytes follow from the program alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from partition.graph.block_operators import AddInputGrad, Normalise, NormGrad, Rescale
from partition.graph.mixed_operators import AddProduct, Cast, CastWeights, WeightProduct
from partition.graph.pieces import piece_elements
from partition.graph.program import Affine, Category, InputGrad, Load, Variable, WeightGrad
from partition.graph.steps import Step, workspace

_SPACES_OF_NORMS = ("workspace", "product", "statistics", "sums")


def wide_workspace(name: str, columns: int | None, *, has_rows: bool = True) -> Variable:
    """A variable of the wide format that does not outlive its action."""
    return Variable(name, Category.WORKSPACE, has_rows=has_rows, columns=columns, is_wide=True)


def load_step(x: Variable, *, is_mixed: bool) -> Iterator[Step]:
    """The minibatch's rows; where formats are mixed they come in the wide one."""
    if is_mixed:
        wide = x._replace(name=f"{x.name}_wide", is_wide=True)
        yield Step((Load(wide), Cast(wide, x)), (x, wide))
    else:
        yield Step((Load(x),), (x,))


def in_mixed_precision(steps: Sequence[Step], stage_input: Variable) -> list[Step]:
    """The steps with what changes between formats put in."""
    return [mixed for step in steps for mixed in _mixed(step, stage_input)]


def _mixed(step: Step, stage_input: Variable) -> Iterator[Step]:
    match step.operators:
        case (Affine(layer, _, _) as affine,):
            yield _with_weights(affine, layer.parameter_elements, step)
        case ((InputGrad(layer, _, _) | AddInputGrad(layer, _, _)) as operator,):
            yield _with_weights(operator, layer.weight_elements, step)
        case (WeightGrad() as operator,):
            yield from _weight_grad(operator, step, stage_input)
        case (Normalise() | NormGrad() | Rescale() as operator,):
            yield _norm(operator, step)
        case _:
            yield step


def _with_weights(operator: Affine | InputGrad | AddInputGrad, elements: int, step: Step) -> Step:
    layer = operator.layer
    weights = workspace(f"weights{layer.index}", elements, has_rows=False)
    return Step((CastWeights(layer, weights), operator._replace(weights=weights)), (weights, *step.uses))


def _weight_grad(operator: WeightGrad, step: Step, stage_input: Variable) -> Iterator[Step]:
    layer, x, grad_z, sums = operator
    product = workspace(f"product{layer.index}", layer.parameter_elements, has_rows=False)
    piece = wide_workspace(f"piece{layer.index}", piece_elements((layer,)), has_rows=False)
    yield Step((WeightProduct(layer, x, grad_z, sums, product),), (product, *step.uses))
    # Autograd holds the stage's input until the backward ends, so that giving it back before would free nothing.
    held = (x,) if x == stage_input else ()
    yield Step((AddProduct(layer, product, piece),), (piece, product, *held))


def _norm(operator: Normalise | NormGrad | Rescale, step: Step) -> Step:
    """What a norm works in, and its sums, are wide: statistics of the narrow format would be good to two digits."""
    spaces = {name: getattr(operator, name) for name in _SPACES_OF_NORMS if name in operator._fields}
    widened = {space: space._replace(is_wide=True) for space in spaces.values()}
    own = {"wide": wide_workspace(f"wide{operator.norm.index}", operator.norm.features)}
    if isinstance(operator, NormGrad):
        own["wide_grad"] = wide_workspace(f"wide_grad{operator.norm.index}", operator.norm.features)
    changes: dict[str, Any] = {**own, **{name: widened[space] for name, space in spaces.items()}}
    changed = operator._replace(**changes)
    return Step((changed,), (*own.values(), *(widened.get(used, used) for used in step.uses)))
