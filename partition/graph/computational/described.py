"""What is known of an operator of a stage program in the graph, and where it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from partition.graph.computational.nodes import Phase
from partition.graph.layers import Dropout, Gate, Layer
from partition.graph.network import Network
from partition.graph.program import Variable

AFFINE = "affine"


@dataclass(frozen=True, kw_only=True)
class Described:
    """One operator: its buffers, parameters, and how it is written."""

    name: str
    label: str
    formula: str
    phase: Phase
    record: object
    """What the instruction is of: a layer, or another part of the network; None where it names none."""
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
    again: tuple[Variable, ...] = ()
    """Of an operator of the backward: the buffers in which it leaves what its forward wrote."""
    left: tuple[tuple[Variable, Variable], ...] = ()
    """Of an operator of the backward: buffers that then stand for the value of another one."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is known where an instruction stands."""

    network: Network
    values: Mapping[str, str]
    """For every buffer that holds a value the id of the value."""
    spaces: Set[str]
    """The buffers that hold nothing from one operator to another."""

    def letter(self, buffer: Variable) -> str:
        """The letter of the value of a buffer: h of `h3@1`."""
        return re.split(r"[0-9@']", self.values[buffer.name])[0]

    def result(self, layer: Layer) -> str:
        """The letter of what the affine map of a layer computes: without an activation it is h at once."""
        last = self.network.layers[-1]
        if layer is last or layer in getattr(last, "parts", ()):
            return "o"
        is_inner = layer.name.startswith("swiglu")
        return "h" if layer.activation.is_identity and not is_inner else "z"


def parameters_of(layer: Layer) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Letters and shapes of a layer's parameters."""
    shapes: dict[str, tuple[int, ...]] = {"W": (layer.out_features, layer.in_features)}
    if layer.has_bias:
        shapes["b"] = (layer.out_features,)
    return tuple(shapes), shapes


def number_parts(network: Network) -> dict[object, int]:
    """For every part its number: that of a gate is its last layer's, that of a dropout the one of what it follows."""
    found: dict[object, int] = {}
    for unit in network.layers:
        index = unit.weighted[0].index
        for part in unit.parts:
            layers = (part.gate, part.up) if isinstance(part, Gate) else ()
            found |= {layer: layer.index for layer in layers}
            if not isinstance(part, Dropout):
                index = part.up.index if isinstance(part, Gate) else part.index
            found[part] = index
    return found
