"""Programs of blocks: balanced whatever is strung together, and no more kept than is said."""

from __future__ import annotations

import random
from typing import Any

import pytest

from partition.config import ModelConfig
from partition.graph import ACTIVATION_RECORDS, Category, StageProgram, build_network, build_stage_program
from partition.graph.network import Network
from partition.graph.program import Give, Take, WeightGrad, operators
from tests.graph.test_program import name_of, run, sent
from tests.runtime.random_experiments import random_blocks

NORMS = ("layer_norm", "rms_norm")


def network(*blocks: dict[str, Any], **options: Any) -> Network:
    model = {"in_features": 6, "out_features": 3, "blocks": blocks, "activation": "gelu", **options}
    return build_network(ModelConfig.model_validate(model))


def columns_kept(program: StageProgram) -> int:
    """Columns that a microbatch leaves between F and B, what is received included."""
    received = 0 if program.is_first else program.input.columns or 0
    total = received
    for instruction in program.forward:
        if isinstance(instruction, Take | Give) and instruction.variable.has_rows:
            columns = 1 if instruction.variable.is_index else instruction.variable.columns or 1
            total += columns if isinstance(instruction, Take) else -columns
    if not program.is_last and not program.is_output_kept:
        total -= program.output.columns or 0
    return total


@pytest.mark.parametrize("seed", range(150))
def test_every_buffer_is_given_back_once(seed: int) -> None:
    """Any blocks in any order, every stage of them."""
    choose = random.Random(seed)
    loss = choose.choice(["cross_entropy", "mse"])
    built = network(*random_blocks(choose, choose.randint(1, 5)), bias=choose.random() < 0.5, loss=loss)
    for first in range(built.num_layers):
        for last in range(first, built.num_layers):
            program = build_stage_program(built, first, last)
            received = set() if program.is_first else {program.input.name}
            before_backward = run(program.forward, received) - sent(program) | name_of(program.grad_output)
            assert run(program.backward, before_backward) == name_of(program.grad_input)
            after_input_grad = run(program.input_grad, before_backward)
            assert run(program.weight_grad, after_input_grad - name_of(program.grad_input)) == set()
            assert run(program.predict, received) == {program.prediction.name}
            assert set(operators(program.backward)) == {
                *operators(program.input_grad),
                *operators(program.weight_grad),
            }


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("activation", sorted(set(ACTIVATION_RECORDS) - {"identity"}))
def test_a_residual_block_keeps_its_input_and_its_hidden_layer(norm: str, dropout: float, activation: str) -> None:
    """Norm, dropout and sum keep nothing of their own: x is the norm's, the hidden layer the activation's."""
    block = {"residual": {"norm": norm, "hidden": 9, "activation": activation, "dropout": dropout}}
    program = build_stage_program(network({"linear": 5}, block, {"linear": 4}), 1, 1)
    assert columns_kept(program) == 5 + 9


@pytest.mark.parametrize("norm", [None, *NORMS])
def test_a_gated_block_keeps_its_input_and_two_hidden_layers(norm: str | None) -> None:
    block = {"residual": {"swiglu": 9, **({"norm": norm} if norm else {})}}
    program = build_stage_program(network({"linear": 5}, block, {"linear": 4}), 1, 1)
    assert columns_kept(program) == 5 + 2 * 9


@pytest.mark.parametrize("activation", sorted(ACTIVATION_RECORDS))
@pytest.mark.parametrize("kind", ["hidden", "swiglu"])
def test_input_and_gradient_of_every_layer_stand_between_i_and_w(activation: str, kind: str) -> None:
    """A norm's weight gradient is taken with its input gradient, and leaves nothing."""
    inner = {"hidden": 9, "activation": activation} if kind == "hidden" else {"swiglu": 9}
    program = build_stage_program(network({"linear": 5}, {"residual": {"norm": "layer_norm", **inner}}), 1, 1)
    needed = {
        variable.name
        for operator in operators(program.weight_grad)
        if isinstance(operator, WeightGrad)
        for variable in (operator.x, operator.grad_z)
    }
    received = {program.input.name}
    before = run(program.forward, received) - sent(program) | name_of(program.grad_output)
    assert run(program.input_grad, before) == needed | name_of(program.grad_input)
    assert len(needed) == (4 if kind == "hidden" else 2 + 3)


def test_a_norm_after_tanh_standardises_apart() -> None:
    """Tanh' reads what the norm reads, later; with gelu before it x̂ takes the place of x."""
    keys = {}
    for activation in ("tanh", "gelu"):
        blocks = ({"linear": 5, "activation": activation}, {"residual": {"norm": "layer_norm", "hidden": 4}})
        program = build_stage_program(network(*blocks), 0, 2)
        (found,) = [one for one in operators(program.backward) if type(one).__name__ == "NormGrad"]
        keys[activation] = found.x is found.standardised
    assert keys == {"tanh": False, "gelu": True}


def test_what_is_sent_is_boundary_and_what_is_kept_is_not() -> None:
    program = build_stage_program(network({"residual": {"norm": "rms_norm", "hidden": 4}, "repeat": 3}), 1, 1)
    assert program.output.category is Category.BOUNDARY
    assert program.grad_input is not None
    assert program.grad_input.category is Category.BOUNDARY
    assert not program.is_output_kept


def test_repeated_blocks_are_numbered_through() -> None:
    built = network({"residual": {"norm": "layer_norm", "hidden": 4}, "repeat": 2}, {"linear": 7})
    assert [unit.index for unit in built.layers] == [0, 1, 2, 3]
    assert [part.index for unit in built.layers for part in unit.weighted] == list(range(8))
    assert [(unit.in_features, unit.out_features) for unit in built.layers] == [(6, 6), (6, 6), (6, 7), (7, 3)]


def test_without_dropout_nothing_else_changes() -> None:
    built = network({"linear": 5, "dropout": 0.5}, {"residual": {"hidden": 4, "dropout": 0.1}})
    assert built.has_dropout
    assert not built.without_dropout().has_dropout
    assert built.without_dropout().layers == network({"linear": 5}, {"residual": {"hidden": 4}}).layers
