"""Programs with recomputation: balanced, what they keep, what they run again, and where."""

from __future__ import annotations

import random
from itertools import product

import pytest

from partition.config import ModelConfig
from partition.graph import (
    ACTIVATION_RECORDS,
    LOSS_RECORDS,
    Spans,
    StageProgram,
    build_network,
    build_stage_program,
    recomputed,
)
from partition.graph.program import Activate, Affine, LossAndGrad, operators
from partition.graph.recompute import kept_variables
from tests.graph.test_program import SPLITS, name_of, network, run, sent
from tests.runtime.random_experiments import random_blocks


def spans_of(first: int, last: int) -> list[Spans]:
    """Every choice of layers, as runs."""
    found = []
    for marks in product([False, True], repeat=last - first + 1):
        layers = [first + place for place, is_marked in enumerate(marks) if is_marked]
        firsts = [layer for layer in layers if layer - 1 not in layers]
        found.append(tuple((one, next(end for end in range(one, 9) if end + 1 not in layers)) for one in firsts))
    return found


def check(program: StageProgram) -> None:
    """Every buffer is taken and given back once, whole or split."""
    received = set() if program.is_first else {program.input.name}
    before = run(program.recompute, run(program.forward, received) - sent(program)) | name_of(program.grad_output)
    assert run(program.backward, before) == name_of(program.grad_input)
    assert run(program.weight_grad, run(program.input_grad, before)) == name_of(program.grad_input)


@pytest.mark.parametrize("loss", LOSS_RECORDS)
@pytest.mark.parametrize("activation", ACTIVATION_RECORDS)
def test_every_buffer_is_given_back_once_whatever_is_computed_again(activation: str, loss: str) -> None:
    for first, last in SPLITS:
        plain = build_stage_program(network(activation, loss), first, last)
        for spans in spans_of(first, last):
            check(recomputed(plain, spans))


@pytest.mark.parametrize("seed", range(40))
def test_blocks_of_any_kind_are_computed_again(seed: int) -> None:
    """Norms, gates, dropouts and sums, in any order: every stage, and every choice of its blocks."""
    choose = random.Random(seed)
    model = {"in_features": 6, "out_features": 3, "blocks": random_blocks(choose, choose.randint(1, 4))}
    built = build_network(ModelConfig.model_validate({**model, "activation": "gelu", "bias": choose.random() < 0.5}))
    for first in range(built.num_layers):
        for last in range(first, built.num_layers):
            plain = build_stage_program(built, first, last)
            for spans in spans_of(first, last):
                check(recomputed(plain, spans))


def test_without_spans_the_programs_are_the_same() -> None:
    plain = build_stage_program(network(), 0, 3)
    assert recomputed(plain, ()) is plain


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_what_is_kept_is_what_no_span_covers(activation: str) -> None:
    plain = build_stage_program(network(activation), 0, 3)
    assert set(kept_variables(plain)) == {"z0", "z1", "z2", "g3"}
    again = recomputed(plain, ((1, 2),))
    assert set(kept_variables(again)) == {"z0", "g3"}
    assert run(again.forward, set()) == {"x", "z0", "g3"}
    assert again.recompute == ()  # the last layer's backward comes first, and needs neither


def test_within_the_backward_a_span_is_made_right_before_it_is_needed() -> None:
    again = recomputed(build_stage_program(network("tanh"), 0, 3), ((0, 0), (2, 2)))
    kinds = [type(one).__name__ + str(getattr(getattr(one, "layer", None), "index", ""))
             for one in operators(again.backward)]  # fmt: skip
    assert kinds == [
        "InputGrad3", "Affine2", "Activate2", "ActivationGrad2", "WeightGrad3", "InputGrad2", "ActivationGrad1",
        "WeightGrad2", "InputGrad1", "Affine0", "Activate0", "ActivationGrad0", "WeightGrad1", "WeightGrad0",
    ]  # fmt: skip


def test_what_the_backward_needs_first_is_an_action_of_its_own() -> None:
    """Of a stage in the middle its last layers; the output is sent under another name, and not kept."""
    plain = build_stage_program(network("tanh"), 1, 2)
    again = recomputed(plain, ((1, 2),))
    assert (plain.is_output_kept, again.is_output_kept) == (True, False)
    assert (plain.output.name, again.output.name) == ("z2", "z2_sent")
    assert [type(one) for one in operators(again.recompute)] == [Affine, Activate, Affine, Activate]
    assert again.backward == plain.backward
    assert again.input_grad == plain.input_grad


def test_the_last_stage_computes_its_loss_again() -> None:
    again = recomputed(build_stage_program(network("gelu", "mse"), 3, 3), ((3, 3),))
    assert run(again.forward, {"x"}) == {"x"}
    assert isinstance(list(operators(again.recompute))[-1], LossAndGrad)


def test_phi_of_a_kept_pre_activation_is_computed_from_it() -> None:
    """The layer before keeps z: phi(z) is a temporary of the recomputation, and z stays for its own backward."""
    again = recomputed(build_stage_program(network("gelu"), 0, 2), ((1, 1),))
    made = list(operators(again.backward))
    first = next(place for place, one in enumerate(made) if isinstance(one, Activate))
    assert isinstance(made[first], Activate)
    assert (made[first].layer.index, made[first].z.name, made[first].h.name) == (0, "z0", "h0_again")
    assert isinstance(made[first + 1], Affine)
