"""Steps of a program: operators with the variables that they use; buffers come and go by themselves.

Variables not alive are taken before a step, those that nobody uses later are given back after it, in the order in which
the step names them. So a program holds a buffer from its first use to its last and never longer, whatever is strung
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from partition.graph.block_operators import Drop, Gated, Normalise
from partition.graph.chain import ActivationNode, AddNode, AffineNode, DropoutNode, GateNode, Node, NormNode
from partition.graph.layers import Dropout
from partition.graph.program import Activate, Affine, Category, Give, Instruction, Operator, Program, Take, Variable

DROPOUT_PIECE = 2**16
"""Numbers of a mask that are drawn at once, or one example's where those are more."""


@dataclass(frozen=True)
class Step:
    """Operators and the variables that they use."""

    operators: tuple[Operator, ...]
    uses: tuple[Variable, ...]


def to_program(steps: Sequence[Step], alive: set[str], left: set[str]) -> Program:
    """The instructions of steps that begin with the variables `alive` and end with those `left`."""
    last_use = {variable.name: index for index, step in enumerate(steps) for variable in step.uses}
    program: list[Instruction] = []
    alive = set(alive)
    for index, step in enumerate(steps):
        uses = dict.fromkeys(step.uses)
        for variable in uses:
            if variable.name not in alive:
                alive.add(variable.name)
                program.append(Take(variable))
        program += step.operators
        for variable in uses:
            if last_use[variable.name] == index and variable.name not in left:
                alive.remove(variable.name)
                program.append(Give(variable))
    return tuple(program)


def names_of(steps: Sequence[Step]) -> set[str]:
    """The names of the variables that steps use, workspaces apart."""
    uses = (variable for step in steps for variable in step.uses)
    return {variable.name for variable in uses if variable.category is not Category.WORKSPACE}


def workspace(name: str, columns: int, *, has_rows: bool = True) -> Variable:
    """A variable that one step uses."""
    return Variable(name, Category.WORKSPACE, has_rows=has_rows, columns=columns)


def forward_step(node: Node, x: Variable, out: Variable, inner: tuple[Variable, ...] = ()) -> Iterator[Step]:
    """A node's value from its input; `inner` are a gate's two pre-activations."""
    match node:
        case AffineNode(layer):
            yield Step((Affine(layer, x, out),), (out, x))
        case ActivationNode(layer):
            yield Step((Activate(layer, x, out),), (out, x))
        case NormNode(norm):
            statistics = workspace(f"statistics{norm.index}", 2)
            yield Step((Normalise(norm, x, out, statistics),), (statistics, out, x))
        case DropoutNode(dropout):
            yield drop(dropout, x, out)
        case AddNode():
            raise AssertionError("a sum has two inputs")
        case GateNode(gate):
            a, b = inner
            yield Step((Affine(gate.gate, x, a),), (a, x))
            yield Step((Affine(gate.up, x, b),), (b, x))
            yield Step((Gated(gate, a, b, out),), (out, a, b))


def drop(dropout: Dropout, x: Variable, out: Variable) -> Step:
    """Values or gradients with a mask."""
    rows = max(1, DROPOUT_PIECE // dropout.features)
    mask = workspace(f"mask{dropout.index}", rows * dropout.features, has_rows=False)
    return Step((Drop(dropout, x, out, mask),), (mask, out, x))
