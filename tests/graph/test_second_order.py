"""The programs of a Hessian-vector product: literal, and every buffer comes and goes."""

from __future__ import annotations

from collections import Counter

import pytest

from partition.config import ModelConfig
from partition.graph import build_network, build_second_order_program, build_stage_program
from partition.graph.network import Network
from partition.graph.pair_operators import (
    Pair,
    PairActivate,
    PairActivationGrad,
    PairAffine,
    PairInputGrad,
    PairLoss,
    PairWeightGrad,
)
from partition.graph.program import Give, Load, Take


def network(**changes: object) -> Network:
    return build_network(ModelConfig.model_validate({
        "in_features": 4, "hidden_features": (3, 2), "out_features": 5, "activation": "gelu", **changes,
    }))  # fmt: skip


def words(program: tuple[object, ...]) -> list[str]:
    """A program in short: +z0 taken, -z0 given, operators by name and layer."""
    found = []
    for instruction in program:
        match instruction:
            case Take(variable):
                found.append(f"+{variable.name}")
            case Give(variable):
                found.append(f"-{variable.name}")
            case Load(into):
                found.append(f"load {into.name}")
            case PairLoss():
                found.append("loss")
            case PairAffine() | PairActivate() | PairInputGrad() | PairActivationGrad() | PairWeightGrad():
                found.append(f"{type(instruction).__name__[4:]} {instruction.layer.index}")
    return found


def test_programs_of_the_last_two_layers() -> None:
    program = build_second_order_program(network(bias=False), 1, 2)
    assert words(program.forward) == [
        "+z1", "Affine 1", "+h1", "Activate 1", "+z2", "Affine 2", "-h1",
        "+targets", "+loss_workspace", "+loss_column", "+g2", "load targets", "loss",
        "-targets", "-loss_workspace", "-loss_column", "-z2",
    ]  # fmt: skip
    assert words(program.backward) == [
        "+g1", "InputGrad 2", "+second_workspace1_0", "ActivationGrad 1", "-second_workspace1_0", "Activate 1",
        "WeightGrad 2", "-g2", "-z1", "+g0", "InputGrad 1", "WeightGrad 1", "-g1", "-x",
    ]  # fmt: skip
    assert words(program.input_grad) == [
        word for word in words(program.backward)
        if not word.startswith("WeightGrad") and word not in ("-g2", "-z1", "-g1", "-x")
    ]  # fmt: skip


def test_a_message_carries_a_variable_and_its_tangent() -> None:
    first, second = (build_second_order_program(network(), *layers) for layers in ((0, 1), (2, 2)))
    for variable in (first.output, second.input, second.grad_input, first.grad_output):
        assert isinstance(variable, Pair)
        assert (variable.shape(7), variable.num_bytes(7, 8)) == ((14, 2), 14 * 2 * 8)
    assert first.input.shape(7) == (7, 4), "inputs of the network do not depend on parameters"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "gelu", "silu", "gelu_tanh", "sigmoid"])
@pytest.mark.parametrize("layers", [(0, 2), (0, 0), (1, 1), (2, 2)])
def test_every_buffer_comes_and_goes_as_in_training(
    layers: tuple[int, int], activation: str, loss: str, bias: bool
) -> None:
    """What messages bring and take apart, nothing is left; what each action leaves is what it leaves in training."""
    of = network(activation=activation, loss=loss, bias=bias)
    program, training = build_second_order_program(of, *layers), build_stage_program(of, *layers)
    for backward in ([program.backward], [program.input_grad, program.weight_grad]):
        left: Counter[str] = Counter(one.name for one in (program.grad_output,) if one)
        left.update([] if program.is_first else [program.input.name])
        for instruction in (*program.forward, *(step for part in backward for step in part)):
            if isinstance(instruction, Take):
                left[instruction.variable.name] += 1
            elif isinstance(instruction, Give):
                left[instruction.variable.name] -= 1
                assert left[instruction.variable.name] == 0, "given twice, or never taken"
        sent = {one.name for one in (program.grad_input,) if one}
        if not program.is_last and not program.is_output_kept:
            sent.add(program.output.name)
        assert {name for name, count in left.items() if count} == sent
    assert program.is_output_kept == training.is_output_kept
    assert (program.is_first, program.is_last) == (training.is_first, training.is_last)
