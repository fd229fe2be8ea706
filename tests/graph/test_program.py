"""Stage programs: balanced, least memory, and held together with the kernels that run them."""

from __future__ import annotations

import pytest

from partition.config import ModelConfig
from partition.graph import ACTIVATION_RECORDS, LOSS_RECORDS, Keeps, Program, StageProgram, build_network
from partition.graph.network import Network
from partition.graph.program import (
    Affine,
    ExampleNorms,
    Give,
    InputGrad,
    Take,
    Variable,
    WeightGrad,
    build_module_program,
    build_stage_program,
    operators,
)
from partition.ops import ACTIVATIONS, LOSSES

SPLITS = [(first, last) for first in range(4) for last in range(first, 4)]


def network(activation: str = "gelu", loss: str = "cross_entropy", bias: bool = True) -> Network:
    model = {"in_features": 6, "hidden_features": (5, 4, 3), "out_features": 2}
    return build_network(ModelConfig.model_validate({**model, "activation": activation, "loss": loss, "bias": bias}))


def run(program: Program, alive: set[str]) -> set[str]:
    """The names alive after a program; nothing may be used before it is taken or after it is given."""
    for instruction in program:
        if isinstance(instruction, Take):
            assert instruction.variable.name not in alive
            alive = alive | {instruction.variable.name}
        elif isinstance(instruction, Give):
            assert instruction.variable.name in alive
            alive = alive - {instruction.variable.name}
        else:
            used = {part.name for part in instruction if isinstance(part, Variable)} - {"loss"}
            assert used <= alive, instruction
    return alive


def name_of(variable: Variable | None) -> set[str]:
    return {variable.name} if variable else set()


def sent(program: StageProgram) -> set[str]:
    """What F leaves to be sent and given back after it."""
    return set() if program.is_last or program.is_output_kept else {program.output.name}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", LOSS_RECORDS)
@pytest.mark.parametrize("activation", ACTIVATION_RECORDS)
@pytest.mark.parametrize(("first", "last"), SPLITS)
def test_every_buffer_is_given_back_once(activation: str, loss: str, bias: bool, first: int, last: int) -> None:
    program = build_stage_program(network(activation, loss, bias), first, last)
    received = set() if program.is_first else {program.input.name}
    after_forward = run(program.forward, received)
    before_backward = after_forward - sent(program) | name_of(program.grad_output)
    assert run(program.backward, before_backward) == name_of(program.grad_input)
    after_input_grad = run(program.input_grad, before_backward)
    assert run(program.weight_grad, after_input_grad) == name_of(program.grad_input)
    assert run(program.predict, received) == {program.prediction.name}


@pytest.mark.parametrize("activation", ACTIVATION_RECORDS)
def test_one_tensor_a_layer_between_forward_and_backward_and_two_before_w(activation: str) -> None:
    """The input of every layer; of a last layer whose loss has been computed, its gradient; two between I and W."""
    program = build_stage_program(network(activation), 0, 3)
    kept = run(program.forward, set())
    assert len(kept) == 4 + 1
    assert len(run(program.input_grad, kept)) == 2 * 4


@pytest.mark.parametrize(("first", "last"), SPLITS)
def test_only_the_first_stage_computes_no_input_gradient(first: int, last: int) -> None:
    program = build_stage_program(network(), first, last)
    found = sum(isinstance(operator, InputGrad) for operator in operators(program.backward))
    assert found == last - first + (first > 0)


@pytest.mark.parametrize(("first", "last"), SPLITS)
def test_every_layer_has_one_product_in_f_and_one_in_w(first: int, last: int) -> None:
    program = build_stage_program(network(), first, last)
    for instructions, kind in ((program.forward, Affine), (program.weight_grad, WeightGrad)):
        assert sum(isinstance(operator, kind) for operator in operators(instructions)) == last - first + 1
    assert set(operators(program.backward)) == {*operators(program.input_grad), *operators(program.weight_grad)}


def test_module_program_is_given_its_input_and_computes_its_gradient() -> None:
    program = build_module_program(network())
    assert program.grad_input is not None
    assert program.grad_output is not None
    assert run(program.forward, {"x"}) >= {"x", program.output.name}


def test_records_and_kernels_hold_together() -> None:
    """An activation or loss is two records of one name."""
    assert ACTIVATIONS.keys() == ACTIVATION_RECORDS.keys()
    assert LOSSES.keys() == LOSS_RECORDS.keys()


@pytest.mark.parametrize("activation", ACTIVATION_RECORDS)
def test_kernels_read_what_the_record_keeps(activation: str) -> None:
    """The derivative from the kept tensor equals autograd's from z."""
    import torch

    z = torch.linspace(-3, 3, 14, dtype=torch.float64).view(2, 7).requires_grad_(True)
    h = torch.empty(2, 7, dtype=torch.float64)
    kernels, keeps = ACTIVATIONS[activation], ACTIVATION_RECORDS[activation].keeps
    with torch.no_grad():
        kernels.forward(z, h)
        grad = torch.ones_like(h)
        kernels.backward(grad, z if keeps is Keeps.PRE_ACTIVATION else h)
    functions = {
        "identity": lambda z: z * 1,
        "gelu_tanh": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
        "sin": torch.sin,
    }
    function = functions.get(activation, getattr(torch.nn.functional, activation, None))
    (expected,) = torch.autograd.grad(function(z).sum(), z)
    assert torch.allclose(grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("first", "last"), SPLITS)
def test_noise_adds_norms_before_each_weight_gradient_and_nothing_else(first: int, last: int) -> None:
    plain = build_stage_program(network(), first, last)
    noisy = build_stage_program(network(), first, last, has_noise=True)
    for name in ("forward", "backward", "input_grad", "weight_grad", "predict"):
        program = list(getattr(noisy, name))
        positions = [at for at, one in enumerate(program) if isinstance(one, ExampleNorms)]
        for at in reversed(positions):
            layer, x, grad_z, workspace, _ = program[at]
            assert program[at - 1 : at + 2] == [Take(workspace), program[at], Give(workspace)]
            del program[at - 1 : at + 2]
            following = next(one for one in program[at - 1 :] if not isinstance(one, Take | Give))
            assert isinstance(following, WeightGrad)
            assert following[:3] == (layer, x, grad_z)
        assert tuple(program) == getattr(plain, name)
        assert len(positions) == (last - first + 1 if name in ("backward", "weight_grad") else 0)
