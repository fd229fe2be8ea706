"""What an instruction of a stage program is in the graph: what it reads and writes, its sign and its formula.

Operators that are not known here are read off their fields: what has no value yet is written, and where everything has
one, the last field is overwritten. So a new operator is drawn before anybody has told how.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType

from partition.graph.computational import Phase
from partition.graph.network import Layer, Network
from partition.graph.program import Activate, ActivationGrad, Affine, InputGrad, Operator, Variable, WeightGrad


@dataclass(frozen=True, kw_only=True)
class Described:
    """One operator: its buffers, parameters, and how it is written."""

    name: str
    label: str
    formula: str
    phase: Phase
    layer: int | None
    reads: tuple[Variable, ...]
    writes: tuple[Variable, ...]
    parameters: tuple[str, ...] = ()
    """Letters of the parameters of its layer that it reads."""
    parameter_gradients: tuple[str, ...] = ()
    """Letters of those whose gradient it computes."""
    letter: str = ""
    """Of what it writes; empty for the name of the buffer."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of the parameters, by letter."""


def describe(operator: Operator, network: Network, written: Set[str]) -> Described:
    """The operator of an instruction; `written` are the names of the buffers that hold a value."""
    describer = _DESCRIBERS.get(type(operator))
    return describer(operator, network) if describer else _unknown(operator, written)


def result_letter(layer: Layer, network: Network) -> str:
    """Of what the affine map of a layer computes: without an activation it is h at once."""
    if layer.index == network.num_layers - 1:
        return "o"
    return "h" if layer.activation.is_identity else "z"


def _parameters(layer: Layer) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    shapes: dict[str, tuple[int, ...]] = {"W": (layer.out_features, layer.in_features)}
    if layer.has_bias:
        shapes["b"] = (layer.out_features,)
    return tuple(shapes), shapes


def _affine(operator: Affine, network: Network) -> Described:
    layer = operator.layer
    letters, shapes = _parameters(layer)
    plus, letter, source = " + b" if layer.has_bias else "", result_letter(layer, network), "h" if layer.index else "x"
    return Described(
        name="affine", label="×+" if layer.has_bias else "×", formula=f"{letter} = {source} Wᵀ{plus}",
        phase=Phase.FORWARD, layer=layer.index, reads=(operator.x,), writes=(operator.z,), parameters=letters,
        letter=letter, shapes=shapes,
    )  # fmt: skip


def _activate(operator: Activate, _: Network) -> Described:
    layer = operator.layer
    name = layer.activation.name
    return Described(name=name, label="φ", formula=f"h = {name}(z)", phase=Phase.FORWARD, layer=layer.index,
                     reads=(operator.z,), writes=(operator.h,), letter="h")  # fmt: skip


def _activation_grad(operator: ActivationGrad, _: Network) -> Described:
    layer = operator.layer
    name = layer.activation.name
    of = "h" if layer.activation.keeps == "output" else "z"
    return Described(
        name=f"{name} gradient", label="φ'", formula=f"∂z = ∂h ⊙ {name}' (from {of})", phase=Phase.INPUT_GRADIENT,
        layer=layer.index, reads=(operator.grad, operator.kept), writes=(operator.grad,),
    )  # fmt: skip


def _input_grad(operator: InputGrad, network: Network) -> Described:
    layer = operator.layer
    _, shapes = _parameters(layer)
    z = result_letter(layer, network)
    return Described(
        name="input gradient", label="×", formula=f"∂h = ∂{z} W", phase=Phase.INPUT_GRADIENT, layer=layer.index,
        reads=(operator.grad_z,), writes=(operator.grad_x,), parameters=("W",), shapes=shapes,
    )  # fmt: skip


def _weight_grad(operator: WeightGrad, network: Network) -> Described:
    layer = operator.layer
    letters, shapes = _parameters(layer)
    z, h = result_letter(layer, network), "h" if layer.index else "x"
    penalty = " + λ W" if network.l2_penalty else ""
    bias = f",  ∂b = Σ ∂{z}" if layer.has_bias else ""
    return Described(
        name="weight gradient", label="×ᵀ", formula=f"∂W = ∂{z}ᵀ {h}{penalty}{bias}", phase=Phase.WEIGHT_GRADIENT,
        layer=layer.index, reads=(operator.grad_z, operator.x), writes=(), parameters=("W",) * bool(network.l2_penalty),
        parameter_gradients=letters, shapes=shapes,
    )  # fmt: skip


_DESCRIBERS: Mapping[type, Callable[..., Described]] = MappingProxyType({
    Affine: _affine,
    Activate: _activate,
    ActivationGrad: _activation_grad,
    InputGrad: _input_grad,
    WeightGrad: _weight_grad,
})  # fmt: skip


def _unknown(operator: Operator, written: Set[str]) -> Described:
    fields = [one for one in operator if isinstance(one, Variable)]
    variables = [one for one in dict.fromkeys(fields) if "workspace" not in one.name]
    layer = next((one.index for one in operator if isinstance(one, Layer)), None)
    new = tuple(one for one in variables if one.name not in written) or tuple(variables[-1:])
    old = tuple(one for one in variables if one.name in written)
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(operator).__name__).lower()
    is_gradient = "grad" in name
    result, given = ", ".join(one.name for one in new), ", ".join(one.name for one in old)
    return Described(
        name=name, label=name[:2].capitalize(), formula=f"{result} = {name}({given})",
        phase=Phase.INPUT_GRADIENT if is_gradient else Phase.FORWARD, layer=layer, reads=old, writes=new,
    )  # fmt: skip
