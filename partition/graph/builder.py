"""Builds the programs of a stage from its chain; `partition.graph.backward` lists the steps of I and W.

Variables are numbered by the parts with parameters, l for short:

    z{l}, h{l}, n{l}    pre-activation; phi of one that is kept, or silu(a) * b; a norm's output
    g{l}                the gradient of what layer l leaves, made by the input gradient of layer l + 1
    s{l}                x̂ of a norm whose input is still needed when its gradient is taken
    d{i}, m{i}          of dropout i: its output, the gradient that it has dropped from where another needs that whole
    y{b}                the output of residual block b where it cannot stand in place of the branch's
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from partition.graph.backward import BackwardSteps
from partition.graph.block_operators import Accumulate
from partition.graph.chain import ActivationNode, AddNode, AffineNode, Chain, DropoutNode, GateNode, NormNode
from partition.graph.mixed import in_mixed_precision, load_step, wide_workspace
from partition.graph.mixed_operators import Cast
from partition.graph.network import Network
from partition.graph.program import TARGETS, Category, Load, LossAndGrad, Program, StageProgram, Variable
from partition.graph.steps import Step, forward_step, names_of, to_program, workspace


class StageBuilder:
    """Names the variables of one stage once and lists its steps."""

    def __init__(
        self,
        network: Network,
        first: int,
        last: int,
        *,
        is_first: bool,
        is_last: bool,
        owns_input: bool = True,
        has_noise: bool = False,
        is_mixed: bool = False,
    ) -> None:
        self.has_noise, self.is_mixed = has_noise, is_mixed
        self.units = network.layers[first : last + 1]
        self.is_first, self.is_last = is_first, is_last
        self.record = network.loss
        self.chain = Chain(self.units, is_training=True, owns_input=owns_input)
        source = Category.DATA if is_first else Category.ACTIVATIONS
        self.x = Variable("x", source, columns=self.units[0].in_features)
        self.loss = Variable("loss", Category.WORKSPACE, has_rows=False, is_wide=is_mixed)
        names = _names(self.chain, self.x)
        self._roles = _roles(self.chain, names, is_last=is_last)
        self.values = self._variables(names)
        self.inner = [self._inner(self.chain, number) for number in range(self.chain.last + 1)]
        self.grad_output = self._grad_output()

    def build(self) -> StageProgram:
        """All programs."""
        backward, split = BackwardSteps(self, is_split=False), BackwardSteps(self, is_split=True)
        received = set() if self.is_first else {self.x.name}
        steps, output = [*self._load(), *self._forward(self.chain, self.values, self.inner)], self.values[-1]
        if self.is_last:
            steps += self._loss_steps(output)
        kept = (names_of(steps) | received) & names_of(backward.steps)
        begun = kept | {self.grad_output.name}
        sent = set() if self.is_first else {backward.grad_input.name}
        deferred = names_of(split.deferred)
        prediction, predict = self._predict(received)
        return StageProgram(
            layers=self.units,
            input=self.x,
            output=self.loss if self.is_last else output,
            prediction=prediction,
            grad_output=None if self.is_last else self.grad_output,
            grad_input=None if self.is_first else backward.grad_input,
            is_output_kept=not self.is_last and self.chain.keeps(self.chain.last),
            forward=self._program(steps, received, kept if self.is_last else kept | {output.name}),
            backward=self._program(backward.steps, begun, sent),
            input_grad=self._program(split.steps, begun, sent | deferred),
            weight_grad=self._program(split.deferred, deferred, set()),
            predict=predict,
            has_noise=self.has_noise,
            is_mixed=self.is_mixed,
        )

    def _program(self, steps: Sequence[Step], alive: set[str], left: set[str]) -> Program:
        return to_program(in_mixed_precision(steps, self.x) if self.is_mixed else steps, alive, left)

    def _variables(self, names: list[tuple[str, int]]) -> list[Variable]:
        """A variable for each value: the same one where values stand in one place, which is how that is told."""
        found = {self.x.name: self.x}
        for name, columns in names:
            found.setdefault(name, Variable(name, self._roles.get(name, Category.WORKSPACE), columns=columns))
        return [found[name] for name, _ in names]

    def _inner(self, chain: Chain, number: int) -> tuple[Variable, ...]:
        """The pre-activations of a gate."""
        node = chain.nodes[number]
        layers = (node.gate.gate, node.gate.up) if isinstance(node, GateNode) else ()
        return tuple(Variable(f"z{layer.index}", Category.ACTIVATIONS, columns=layer.out_features) for layer in layers)

    def _grad_output(self) -> Variable:
        """What the backward begins with: received, or left by the loss."""
        output = self.values[-1]
        if self.is_last and self.record.is_in_place:
            return output
        category = Category.ACTIVATIONS if self.is_last else Category.BOUNDARY
        return Variable(f"g{self.units[-1].weighted[-1].index}", category, columns=output.columns)

    def _load(self) -> Iterator[Step]:
        if self.is_first:
            yield from load_step(self.x, is_mixed=self.is_mixed)

    def _forward(self, chain: Chain, values: list[Variable], inner: list[tuple[Variable, ...]]) -> Iterator[Step]:
        for number, node in enumerate(chain.nodes):
            if isinstance(node, AddNode):
                source, into = values[node.source], values[number]
                assert into is values[number - 1], "no branch ends in a value that is kept"
                yield Step((Accumulate(source, into),), (into, source))
            elif node is not None:
                yield from forward_step(node, values[number - 1], values[number], inner[number])

    def _loss_steps(self, o: Variable) -> Iterator[Step]:
        if not self.is_mixed:
            yield from self._loss_of(o, self.grad_output)
            return
        wide_o = wide_workspace("o_wide", o.columns)
        wide_grad = wide_o if self.record.is_in_place else wide_workspace("grad_o_wide", o.columns)
        yield Step((Cast(o, wide_o),), (wide_o, o))
        yield from self._loss_of(wide_o, wide_grad)
        yield Step((Cast(wide_grad, self.grad_output),), (self.grad_output, wide_grad))

    def _loss_of(self, o: Variable, grad_o: Variable) -> Iterator[Step]:
        record, columns = self.record, None if self.record.has_class_targets else o.columns
        targets = Variable(
            TARGETS, Category.DATA, columns=columns, is_index=record.has_class_targets, is_wide=self.is_mixed
        )
        space = None
        if record.workspace_columns:
            space = workspace("loss_workspace", record.workspace_columns)._replace(is_wide=self.is_mixed)
        if record.is_imported and space is not None:
            # Room for what automatic differentiation allocates by itself: given back before it does.
            yield Step((Load(targets),), (targets,))
            yield Step((), (grad_o, space))
            yield Step((LossAndGrad(o, targets, grad_o, None, self.loss),), (targets, grad_o, o))
            return
        operator = LossAndGrad(o, targets, grad_o, space, self.loss)
        yield Step((Load(targets), operator), (targets, *((space,) if space else ()), grad_o, o))

    def _predict(self, received: set[str]) -> tuple[Variable, Program]:
        """Nothing is kept or dropped, and everything cheap is computed in place."""
        chain = Chain(self.units, is_training=False, owns_input=self.chain.owns_input)
        values = self._variables(_names(chain, self.x))
        inner = [self._inner(chain, number) for number in range(chain.last + 1)]
        steps = [*self._load(), *self._forward(chain, values, inner)]
        return values[-1], self._program(steps, received, {values[-1].name})


def _names(chain: Chain, x: Variable) -> list[tuple[str, int]]:
    """The name and the columns of the variable in which each value of a chain stands."""
    assert x.columns is not None, "an input has columns"
    found = [(x.name, x.columns)]
    for number, node in enumerate(chain.nodes):
        before, columns = found[-1]
        is_free = chain.is_free(number - 1, number)
        match node:
            case AffineNode(layer):
                found.append((f"z{layer.index}", layer.out_features))
            case GateNode(gate):
                name = f"h{gate.up.index}" if chain.is_training else f"z{gate.gate.index}"
                found.append((name, gate.features))
            case ActivationNode(layer):
                found.append((before if is_free else f"h{layer.index}", columns))
            case NormNode(norm):
                found.append((before if is_free else f"n{norm.index}", columns))
            case DropoutNode(dropout):
                found.append((before if is_free else f"d{dropout.index}", columns))
            case AddNode(_, unit):
                found.append((before if is_free else f"y{unit.index}", columns))
    return found


def _roles(chain: Chain, names: list[tuple[str, int]], *, is_last: bool) -> dict[str, Category]:
    """What the variable of each name is for: several values may stand in it one after another."""
    roles: dict[str, Category] = {}
    for value, (name, _) in enumerate(names):
        is_output = value == chain.last
        if is_output and not is_last and not chain.keeps(value):
            roles[name] = Category.BOUNDARY
        elif is_output or chain.keeps(value):
            roles[name] = Category.ACTIVATIONS
    return roles
