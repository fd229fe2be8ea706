"""Programs in two number formats: those in one with casts put in, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import pytest

from partition.graph import build_stage_program
from partition.graph.mixed_operators import AddProduct, Cast, CastWeights, WeightProduct
from partition.graph.program import (
    Activate,
    ActivationGrad,
    Affine,
    Category,
    Give,
    InputGrad,
    Take,
    WeightGrad,
    operators,
)
from tests.graph.test_builder import network
from tests.graph.test_program import name_of, run, sent
from tests.runtime.random_experiments import random_blocks

PROGRAMS = ("forward", "backward", "input_grad", "weight_grad", "predict")
BETWEEN = (Cast, CastWeights, AddProduct)


def kinds(program: Any) -> list[str]:
    """Of the operators in order, those between formats left out; a product is the weight gradient's."""
    found = [type(one) for one in operators(program) if not isinstance(one, BETWEEN)]
    return [(WeightGrad if kind is WeightProduct else kind).__name__ for kind in found]


@pytest.mark.parametrize("seed", range(60))
def test_every_buffer_is_given_back_once_and_the_operators_are_those_of_one_format(seed: int) -> None:
    choose = random.Random(seed)
    loss = choose.choice(["cross_entropy", "mse", "huber"])
    built = network(*random_blocks(choose, choose.randint(1, 4)), bias=choose.random() < 0.5, loss=loss)
    for first in range(built.num_layers):
        for last in range(first, built.num_layers):
            plain = build_stage_program(built, first, last)
            mixed = build_stage_program(built, first, last, is_mixed=True)
            for name in PROGRAMS:
                assert kinds(getattr(mixed, name)) == kinds(getattr(plain, name))
            received = set() if mixed.is_first else {mixed.input.name}
            before_backward = run(mixed.forward, received) - sent(mixed) | name_of(mixed.grad_output)
            assert run(mixed.backward, before_backward) == name_of(mixed.grad_input)
            after_input_grad = run(mixed.input_grad, before_backward)
            assert run(mixed.weight_grad, after_input_grad - name_of(mixed.grad_input)) == set()
            assert run(mixed.predict, received) == {mixed.prediction.name}


@pytest.mark.parametrize("seed", range(10))
def test_nothing_wide_outlives_its_action_or_meets_a_product(seed: int) -> None:
    """What is kept, sent and multiplied is of the format of the arithmetic."""
    built = network(*random_blocks(random.Random(seed), 4))
    program = build_stage_program(built, 0, built.num_layers - 1, is_mixed=True)
    for name in PROGRAMS:
        alive: set[Any] = set()
        for instruction in getattr(program, name):
            match instruction:
                case Take(variable):
                    alive.add(variable)
                case Give(variable):
                    alive.discard(variable)
                case Affine() | InputGrad() | WeightProduct() | Activate() | ActivationGrad():
                    variables = [one for one in instruction if hasattr(one, "is_wide")]
                    assert variables
                    assert not any(variable.is_wide for variable in variables)
        assert not any(variable.is_wide for variable in alive)


def test_one_layer_of_weights_is_there_at_a_time() -> None:
    built = network({"linear": 5}, {"residual": {"swiglu": 4}}, {"linear": 7})
    program = build_stage_program(built, 0, built.num_layers - 1, is_mixed=True)
    for name in PROGRAMS:
        alive = 0
        for instruction in getattr(program, name):
            if isinstance(instruction, Take | Give) and instruction.variable.name.startswith(("weights", "product")):
                assert instruction.variable.category is Category.WORKSPACE
                alive += 1 if isinstance(instruction, Take) else -1
                assert alive <= 1
