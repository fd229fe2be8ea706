"""Nothing stands twice: what is sent, received, differentiated and accumulated each has one buffer, used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import profile

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.graph import ACTIVATION_RECORDS
from partition.graph.activations import Keeps
from partition.graph.program import Program, Take
from partition.runtime.stage import Stage
from partition.schedule import generate, lower
from tests.runtime.by_hand import ByHand, build_fleet
from tests.runtime.test_stage import ITEM, ROWS, begin, build_stage, receive_gradient

Make = Callable[..., ExperimentConfig]
SPLITS = [(0, 3), (0, 1), (1, 2), (2, 3)]
BY_KIND = {keeps: [name for name, one in ACTIVATION_RECORDS.items() if one.keeps is keeps] for keeps in Keeps}


def address(tensor: Tensor) -> int:
    """Of the storage."""
    return tensor.untyped_storage().data_ptr()


def allocations(function: Callable[[], object]) -> list[int]:
    """Bytes of everything that the CPU's allocator hands out while a function runs, in order."""
    with profile(profile_memory=True) as session:
        function()
    events = [event for event in session.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in events if event.nbytes() > 0]


def takes(program: Program) -> list[int]:
    """Bytes of every buffer that a program takes, in order."""
    return [one.variable.num_bytes(ROWS, ITEM) for one in program if isinstance(one, Take)]


@pytest.mark.parametrize(("first", "last"), SPLITS)
@pytest.mark.parametrize("activation", ACTIVATION_RECORDS)
def test_the_allocator_hands_out_what_the_programs_take_and_no_copy(
    make_config: Make, activation: str, first: int, last: int
) -> None:
    stage, _ = build_stage(make_config(activation=activation), first, last)
    frame, program = begin(stage), stage.program
    assert allocations(lambda: stage.forward(frame)) == takes(program.forward)
    if not program.is_last:
        receive_gradient(stage, frame)
    assert allocations(lambda: stage.backward(frame, is_split=True)) == takes(program.input_grad)
    assert allocations(lambda: stage.weight_grad(frame)) == takes(program.weight_grad)


@pytest.mark.parametrize("activation", BY_KIND[Keeps.OUTPUT])
def test_an_output_that_is_kept_anyway_is_sent_from_where_it_stands(make_config: Make, activation: str) -> None:
    stage, device = build_stage(make_config(activation=activation), 1, 2)
    frame = begin(stage)
    sent, held_bytes = stage.forward(frame), device.held_bytes
    assert stage.program.is_output_kept
    assert address(sent) == address(frame.tensors[stage.program.output.name])
    receive_gradient(stage, frame)
    assert device.held_bytes == held_bytes + ROWS * stage.program.layers[-1].out_features * ITEM


@pytest.mark.parametrize("activation", ACTIVATION_RECORDS)
def test_a_gradient_is_taken_through_the_activation_where_it_was_received(make_config: Make, activation: str) -> None:
    stage, _ = build_stage(make_config(activation=activation), 1, 2)
    frame = begin(stage)
    stage.forward(frame)
    received = address(receive_gradient(stage, frame))
    stage.backward(frame, is_split=True)
    assert stage.program.grad_output is not None
    assert address(frame.tensors[stage.program.grad_output.name]) == received


@pytest.mark.parametrize("activation", BY_KIND[Keeps.PRE_ACTIVATION])
def test_phi_of_z_is_computed_again_where_z_stood(make_config: Make, activation: str) -> None:
    stage, _ = build_stage(make_config(activation=activation), 0, 3)
    frame = begin(stage)
    stage.forward(frame)
    before = {name: address(tensor) for name, tensor in frame.tensors.items() if name.startswith("z")}
    values = {name: frame.tensors[name].clone() for name in before}
    stage.backward(frame, is_split=True)
    assert sorted(before) == ["z0", "z1", "z2"]
    for name, place in before.items():
        assert address(frame.tensors[name]) == place
        assert not torch.equal(frame.tensors[name], values[name])


def grad_addresses(stages: Sequence[Stage]) -> list[int]:
    """Of the gradients of all parameters."""
    return [address(one.grad) for stage in stages for one in stage.parameters if one.grad is not None]


def test_gradients_of_all_microbatches_and_steps_are_added_up_in_one_buffer(make_config: Make) -> None:
    fleet = build_fleet(make_config(planner={"num_microbatches": (4,)}), "accumulate-4")
    stages = [stage for worker in fleet.workers for stage in worker.stages.values()]
    data, before = load(fleet.search.config), grad_addresses(stages)
    for _ in range(3):
        fleet.train(data.train_x, data.train_y, np.arange(22))
    assert len(before) == 8
    assert grad_addresses(stages) == before


def peaks(make_config: Make, name: str) -> list[dict[int, int | None]]:
    """Of both ranks, on the stages of one candidate, for growing numbers of microbatches of one size."""
    planner, found = {"num_microbatches": (32,), "num_stages": (2,)}, []
    for num_microbatches in (8, 16, 32):
        fleet = build_fleet(make_config(minibatch_size=64, planner=planner), "pipeline-2x32-1f1b")
        schedule = lower(generate(name, num_ranks=2, num_microbatches=num_microbatches))
        ByHand(fleet=fleet, schedule=schedule, sizes=(2,) * num_microbatches).run()
        found.append(fleet.peak_bytes())
    return found


@pytest.mark.parametrize("name", ["1f1b", "zb_h1"])
def test_more_microbatches_use_the_same_buffers_again(make_config: Make, name: str) -> None:
    """A schedule that bounds how many are in flight takes not a byte more for four times as many."""
    eight, sixteen, all_of_them = peaks(make_config, name)
    assert eight == sixteen == all_of_them


def test_a_schedule_that_keeps_all_microbatches_takes_more_for_more_of_them(make_config: Make) -> None:
    """What the test above would find if buffers were not used again."""
    first_rank = [of_rank[0] or 0 for of_rank in peaks(make_config, "gpipe")]
    assert first_rank[0] < first_rank[1] < first_rank[2]
