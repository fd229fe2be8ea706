"""The backward of a stage, I and W: the nodes of its chain from the last to the first, and W of each when it can be.

    I    the gradient of a node's input from that of its output, in place where the node is cheap
    W    of a layer as soon as its input is there: kept, or made anew in place once I is done with what was kept

Where the sum of a residual block meets its branch, one gradient goes both ways: it is not overwritten until the two
come together again at the block's input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from partition.graph.activations import Keeps
from partition.graph.block_operators import Accumulate, AddInputGrad, GatedGrad, NormGrad, Rescale
from partition.graph.chain import ActivationNode, AddNode, AffineNode, Chain, DropoutNode, GateNode, NormNode
from partition.graph.layers import Gate, Layer, Weighted
from partition.graph.program import ActivationGrad, Category, ExampleNorms, InputGrad, Variable, WeightGrad
from partition.graph.steps import Step, drop, forward_step, workspace


class StageValues(Protocol):
    """The variables of a stage's forward."""

    chain: Chain
    is_first: bool
    has_noise: bool
    grad_output: Variable
    values: list[Variable]
    inner: list[tuple[Variable, ...]]


@dataclass(frozen=True)
class _Pending:
    """Weight gradients that wait for the input of their node."""

    reader: int
    layers: tuple[tuple[Layer, Variable], ...]
    """Each with the gradient of what it leaves."""


class BackwardSteps:
    """The steps of B, or of I with those of W in `deferred`."""

    def __init__(self, stage: StageValues, *, is_split: bool) -> None:
        self.stage, self.chain = stage, stage.chain
        self.steps: list[Step] = []
        self.deferred: list[Step] = []
        self._weight_steps = self.deferred if is_split else self.steps
        self._grad = stage.grad_output
        self._is_shared = False
        self._skipped: list[tuple[int, Variable]] = []
        self._pending: list[_Pending] = []
        self._standardised: dict[int, Variable] = {}
        self._run()

    @property
    def grad_input(self) -> Variable:
        """The gradient of the stage's input, where there is one."""
        return self._grad

    def _run(self) -> None:
        first = self.chain.first_weighted if self.stage.is_first else 1
        for number in range(self.chain.last, first - 1, -1):
            self._visit(number)
            self._merge(number - 1)
            self._settle(number)
        assert not self._pending, "every layer has its weight gradient"

    def _has_grad(self, value: int) -> bool:
        """Whether anything needs the gradient of a value."""
        return not self.stage.is_first or self.chain.first_weighted <= value

    def _visit(self, number: int) -> None:
        node = self.chain.nodes[number]
        match node:
            case AddNode(source, _):
                self._skipped.append((source, self._grad))
                self._is_shared = True
            case AffineNode(layer):
                self._pending.append(_Pending(number, ((layer, self._grad),)))
                if self._has_grad(number - 1):
                    self._input_grad(layer)
            case GateNode(gate):
                self._gate(number, gate)
            case DropoutNode(dropout):
                before = self._grad
                if self._is_shared:
                    self._grad = Variable(f"m{dropout.index}", Category.ACTIVATIONS, columns=dropout.features)
                    self._is_shared = False
                self.steps.append(drop(dropout, before, self._grad))
            case ActivationNode(layer):
                self._activation(number, layer)
            case NormNode():
                self._norm(number, node)

    def _new_grad(self, layer: Layer) -> Variable:
        """A variable for the gradient of a layer's input."""
        affine = (node for node in self.chain.nodes if isinstance(node, AffineNode | GateNode))
        first = next(affine)
        is_sent = layer is (first.layer if isinstance(first, AffineNode) else first.gate.gate)
        category = Category.BOUNDARY if is_sent else Category.ACTIVATIONS
        return Variable(f"g{layer.index - 1}", category, columns=layer.in_features)

    def _input_grad(self, layer: Layer) -> None:
        before, self._grad, self._is_shared = self._grad, self._new_grad(layer), False
        self.steps.append(Step((InputGrad(layer, before, self._grad),), (self._grad, before)))

    def _gate(self, number: int, gate: Gate) -> None:
        a, b = self.stage.inner[number]
        grad, grad_a = self._grad, Variable(f"g{gate.gate.index}", Category.ACTIVATIONS, columns=gate.features)
        self.steps.append(Step((GatedGrad(gate, a, b, grad, grad_a),), (grad_a, grad, a, b)))
        self._settle(number)  # h stands in the place of a: W of the layer after it need not wait for what comes here
        self._pending.append(_Pending(number, ((gate.up, grad), (gate.gate, grad_a))))
        if self._has_grad(number - 1):
            self._grad = grad_a
            self._input_grad(gate.gate)
            self.steps.append(Step((AddInputGrad(gate.up, grad, self._grad),), (self._grad, grad)))

    def _activation(self, number: int, layer: Layer) -> None:
        is_pre = layer.activation.keeps is Keeps.PRE_ACTIVATION
        kept, grad = self.stage.values[number - is_pre], self._grad
        if layer.activation.has_workspace:
            slope = workspace(f"workspace{layer.index}", layer.out_features)
            self.steps.append(Step((ActivationGrad(layer, kept, grad, slope),), (slope, kept, grad)))
        else:
            self.steps.append(Step((ActivationGrad(layer, kept, grad),), (kept, grad)))

    def _norm(self, number: int, node: NormNode) -> None:
        norm, x, grad = node.norm, self.stage.values[number - 1], self._grad
        standardised = x
        if not self.chain.standardises_in_place(number):
            standardised = Variable(f"s{norm.index}", Category.ACTIVATIONS, columns=norm.features)
        self._standardised[number] = standardised
        spaces = (
            workspace(f"product{norm.index}", norm.features),
            workspace(f"statistics{norm.index}", 3),
            workspace(f"sums{norm.index}", norm.features, has_rows=False),
        )
        norms = _norms_of(norm) if self.stage.has_noise else None
        operator = NormGrad(norm, x, standardised, grad, *spaces, self._has_grad(number - 1), norms=norms)
        self.steps.append(Step((operator,), (standardised, *spaces, grad, x)))

    def _merge(self, value: int) -> None:
        """Where the branch of a residual block begins, what went past it is added."""
        if self._skipped and self._skipped[-1][0] == value:
            _, past = self._skipped.pop()
            if self._has_grad(value):
                self.steps.append(Step((Accumulate(past, self._grad),), (self._grad, past)))

    def _settle(self, number: int) -> None:
        """Weight gradients whose input is there once the input gradient of a node has been taken."""
        ready = [one for one in self._pending if self.chain.ready_after(one.reader) == number]
        for one in ready:
            self._pending.remove(one)
            x = self._recovered(one.reader - 1)
            for layer, grad in one.layers:
                if self.stage.has_noise:
                    self._weight_steps.append(_example_norms(layer, x, grad))
                self._weight_steps.append(_weight_grad(layer, x, grad))

    def _recovered(self, value: int) -> Variable:
        """The variable in which a value stands for W, made anew there where it was not kept."""
        base = self.chain.base_of(value)
        x, start = self.stage.values[base], base + 1
        if isinstance(self.chain.nodes[base], GateNode) and not self.chain.keeps(base):
            x = self.stage.inner[base][0]
        elif base != value and isinstance(node := self.chain.nodes[start], NormNode):
            x, start = self._standardised[start], start + 1
            self.steps.append(Step((Rescale(node.norm, x),), (x,)))
        self.steps += list(self._again(range(start, value + 1), x))
        return x

    def _again(self, numbers: range, x: Variable) -> Iterator[Step]:
        for number in numbers:
            node = self.chain.nodes[number]
            assert node is not None, "nodes count from 1"
            yield from forward_step(node, x, x)


def _example_norms(layer: Layer, x: Variable, grad: Variable) -> Step:
    space = workspace(f"norm_workspace{layer.index}", 2)
    return Step((ExampleNorms(layer, x, grad, space, _norms_of(layer)),), (space, grad, x))


def _norms_of(part: Weighted) -> Variable:
    """Stands for the number of a part that the stage provides."""
    return Variable(f"example_norms{part.index}", Category.WORKSPACE, has_rows=False)


def _weight_grad(layer: Layer, x: Variable, grad: Variable) -> Step:
    if not layer.has_bias:
        return Step((WeightGrad(layer, x, grad, None),), (grad, x))
    sums = workspace(f"bias_workspace{layer.index}", layer.out_features, has_rows=False)
    return Step((WeightGrad(layer, x, grad, sums),), (sums, grad, x))
