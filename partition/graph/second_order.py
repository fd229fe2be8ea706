"""The second-order graph of a stage: the programs of a Hessian-vector product, forward over reverse.

With R{f} the derivative of f along a direction V of the parameters (Pearlmutter 1994), H V = R{grad}: every operator of
forward and backward becomes two, and what the backward keeps is kept twice. A variable and its tangent share a buffer,
a *pair*: the rows of one above the rows of the other, so that one message carries both and most products are one.

    forward  [x ; Rx]  ->  [z ; Rz] = [x ; Rx] Wᵀ + [b ; x Vᵀ + Vb]  ->  [h ; Rh] = [phi(z) ; phi'(z) ⊙ Rz]  ->  ...
    loss     [o ; Ro]  ->  [Rg ; g] = [H_loss Ro ; dL/do]                         the tangent above: see W
    I        [Rg ; g]  <-  [Rg ⊙ phi' + g ⊙ phi'' ⊙ Rz ; g ⊙ phi'];   that of the layer before = [Rg ; g] W + [g V ; 0]
    W        H V (weight) += [Rg ; g]ᵀ [x ; Rx] = Rgᵀ x + gᵀ Rx;   H V (bias) += rows of Rg;   lambda V once a step

Gradients have their tangent above, everything else below: so W is one product of two whole pairs. The first stage's
input has no tangent, its layer's products are those of one half. The operators are named after those of a first
derivative, with `Pair` before them; the programs are those of training step by step, with the same actions, and run
under any schedule. J is that of `eval`: nothing is dropped.

Products of B rows for a layer in the middle: 3 in F, 3 in I, 2 in W, where a gradient has 1, 1 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from partition.graph.activations import ACTIVATION_RECORDS
from partition.graph.block_operators import Accumulate, AddInputGrad, Gated, GatedGrad, Normalise, NormGrad, Rescale
from partition.graph.builder import StageBuilder
from partition.graph.chain import NormNode
from partition.graph.layers import Layer
from partition.graph.network import Network
from partition.graph.pair_operators import (
    Pair,
    PairAccumulate,
    PairActivate,
    PairActivationGrad,
    PairAddInputGrad,
    PairAffine,
    PairGated,
    PairGatedGrad,
    PairInputGrad,
    PairLoad,
    PairLoss,
    PairNormalise,
    PairNormGrad,
    PairRescale,
    PairWeightGrad,
)
from partition.graph.program import (
    TARGETS,
    Activate,
    ActivationGrad,
    Affine,
    Category,
    InputGrad,
    Load,
    Program,
    StageProgram,
    Variable,
    WeightGrad,
)
from partition.graph.steps import Step, to_program, workspace


def build_second_order_program(network: Network, first_layer: int, last_layer: int) -> StageProgram:
    """The programs of a Hessian-vector product of the stage of layers first_layer..last_layer, inclusive."""
    is_first, is_last = first_layer == 0, last_layer == network.num_layers - 1
    return _PairBuilder(network.without_dropout(), first_layer, last_layer, is_first=is_first, is_last=is_last).build()


class _PairBuilder(StageBuilder):
    """Lists the steps of training, and makes of every operator that of a variable and its tangent."""

    def build(self) -> StageProgram:
        """All programs but a prediction, which has no tangents."""
        program = super().build()
        sent = (program.grad_output, program.grad_input)
        grad_output, grad_input = (None if of is None else self._pair(of) for of in sent)
        return replace(
            program,
            input=self._of_input,
            output=program.output if self.is_last else self._pair(program.output),
            prediction=self._pair(self.values[-1]),
            grad_output=grad_output,
            grad_input=grad_input,
        )

    @property
    def _of_input(self) -> Variable:
        """The network's input has no tangent, nor needs a place for one unless a norm works in its place."""
        is_plain = self.is_first and not isinstance(self.chain.nodes[1], NormNode)
        return self.x if is_plain else self._pair(self.x)

    def _pair(self, variable: Variable) -> Pair:
        # The same one for the same variable: that tells what is in place.
        return self._pairs.setdefault(variable.name, Pair(*variable))

    def _maybe_pair(self, variable: Variable) -> Variable:
        return self._of_input if variable.name == self.x.name else self._pair(variable)

    def _grad_output(self) -> Variable:
        """Never in place of the outputs, whose tangent the loss still reads."""
        self._pairs: dict[str, Pair] = {}
        category = Category.ACTIVATIONS if self.is_last else Category.BOUNDARY
        return Variable(f"g{self.units[-1].weighted[-1].index}", category, columns=self.values[-1].columns)

    def _predict(self, received: set[str]) -> tuple[Variable, Program]:
        del received
        return self.values[-1], ()

    def _load(self) -> Iterator[Step]:
        for step in super()._load():
            into = self._of_input
            yield Step((PairLoad(into),), (into,)) if isinstance(into, Pair) else step

    def _loss_of(self, o: Variable, grad_o: Variable) -> Iterator[Step]:
        record = self.record
        columns = None if record.has_class_targets else o.columns
        targets = Variable(TARGETS, Category.DATA, columns=columns, is_index=record.has_class_targets)
        space = workspace("loss_workspace", o.columns or 1) if record.has_second_workspace else None
        column = workspace("loss_column", record.workspace_columns) if record.workspace_columns else None
        spaces = tuple(one for one in (space, column) if one is not None)
        loss = PairLoss(self._pair(o), targets, self._pair(grad_o), space, column, self.loss)
        yield Step((Load(targets), loss), (targets, *spaces, loss.grad_o, loss.o))

    def _program(self, steps: Sequence[Step], alive: set[str], left: set[str]) -> Program:
        return to_program([self._paired(step) for step in steps], alive, left)

    def _paired(self, step: Step) -> Step:
        pair = self._pair
        match step.operators:
            case (Affine(layer, x, z),):
                affine = PairAffine(layer, self._maybe_pair(x), pair(z))
                return Step((affine,), (affine.z, affine.x))
            case (Activate(layer, z, h),):
                return _activate(layer, pair(z), pair(h))
            case (ActivationGrad(layer, kept, grad, _),):
                spaces = _second_workspaces(layer.index, layer.activation.second_workspaces, layer.out_features)
                slope = PairActivationGrad(layer, pair(kept), pair(grad), spaces)
                return Step((slope,), (*spaces, slope.kept, slope.grad))
            case (InputGrad(layer, grad_z, grad_x),):
                back = PairInputGrad(layer, pair(grad_z), pair(grad_x))
                return Step((back,), (back.grad_x, back.grad_z))
            case (WeightGrad(layer, x, grad_z, sums),):
                weight = PairWeightGrad(layer, self._maybe_pair(x), pair(grad_z), sums)
                return Step((weight,), (*((sums,) if sums else ()), weight.grad_z, weight.x))
            case _:
                return self._paired_block(step)

    def _paired_block(self, step: Step) -> Step:
        pair = self._pair
        match step.operators:
            case (Normalise(norm, x, n, _),):
                statistics = workspace(f"statistics{norm.index}", 3)
                normalise = PairNormalise(norm, pair(x), pair(n), statistics)
                return Step((normalise,), (statistics, normalise.n, normalise.x))
            case (NormGrad() as operator,):
                return self._norm_grad(operator)
            case (Rescale(norm, n),):
                return Step((PairRescale(norm, pair(n)),), (pair(n),))
            case (Gated(gate, a, b, h),):
                gated = PairGated(gate, pair(a), pair(b), pair(h))
                return Step((gated,), (gated.h, gated.a, gated.b))
            case (GatedGrad(gate, a, b, grad, grad_a),):
                spaces = _second_workspaces(gate.up.index, ACTIVATION_RECORDS["silu"].second_workspaces, gate.features)
                gates = PairGatedGrad(gate, pair(a), pair(b), pair(grad), pair(grad_a), spaces)
                return Step((gates,), (*spaces, gates.grad_a, gates.grad, gates.a, gates.b))
            case (AddInputGrad(layer, grad_z, grad_x),):
                more = PairAddInputGrad(layer, pair(grad_z), pair(grad_x))
                return Step((more,), (more.grad_x, more.grad_z))
            case (Accumulate(source, into),):
                total = PairAccumulate(self._maybe_pair(source), pair(into))
                return Step((total,), (total.into, total.source))
            case _:  # inputs, and the loss, which are of second order already
                return step

    def _norm_grad(self, operator: NormGrad) -> Step:
        norm = operator.norm
        x, standardised, grad = (self._pair(one) for one in (operator.x, operator.standardised, operator.grad))
        statistics = workspace(f"statistics{norm.index}", 5)
        found = PairNormGrad(
            norm, x, standardised, grad, operator.product, statistics, operator.sums, operator.has_input_grad
        )
        return Step((found,), (standardised, operator.product, statistics, operator.sums, grad, x))


def _activate(layer: Layer, z: Pair, h: Pair) -> Step:
    if not layer.activation.has_workspace:
        return Step((PairActivate(layer, z, h),), (h, z))
    space = workspace(f"workspace{layer.index}", layer.out_features)
    return Step((PairActivate(layer, z, h, space),), (space, h, z))


def _second_workspaces(index: int, count: int, columns: int) -> tuple[Variable, ...]:
    return tuple(workspace(f"second_workspace{index}_{place}", columns) for place in range(count))
