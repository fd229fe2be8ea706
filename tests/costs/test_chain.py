"""The costs of a table's stages by hand."""

from __future__ import annotations

from typing import Any

import pytest

from partition.costs import Chain, ChainCosts, Device, LayerCost, relative_seconds
from partition.errors import PartitionError
from partition.graph import Category


def device(name: str = "simulated:0", flop_per_s: float = 100.0, **changes: Any) -> Device:
    return Device(
        name=name,
        kind="simulated",
        memory_bytes=1000,
        flop_per_s=flop_per_s,
        memory_bytes_per_s=1.0,
        source="",
        **changes,
    )


def layer(forward_s: float, activation_bytes: int, saved_bytes: int, **changes: Any) -> LayerCost:
    return LayerCost(
        name="layer",
        forward_s=forward_s,
        backward_s=2 * forward_s,
        activation_bytes=activation_bytes,
        parameter_bytes=7,
        saved_bytes=saved_bytes,
        **changes,
    )


def costs(*, splits_backward: bool = True) -> ChainCosts:
    halves = {"input_grad_s": 0.5, "weight_grad_s": 0.25} if splits_backward else {}
    rows = (
        layer(1.0, 10, 100, **halves),
        layer(2.0, 20, 200, **halves),
        layer(4.0, 30, 5, optimizer_bytes=9, **halves),
    )
    return ChainCosts(Chain(source="t.csv", layers=rows), 32, device())


def test_seconds_are_sums_of_rows() -> None:
    cost = costs().stage(1, 2).microbatch(32)
    found = [getattr(cost, action).seconds(device()) for action in ("forward", "backward", "input_grad", "weight_grad")]
    assert found == [6.0, 12.0, 1.0, 0.5]
    assert costs().stage(1, 2).step.seconds(device()) == 0.0


def test_static_bytes_are_parameters_gradients_and_optimizer() -> None:
    assert costs().stage(1, 2).static_bytes(8) == {
        Category.PARAMETERS: 14,
        Category.GRADIENTS: 14,
        Category.OPTIMIZER: 9,
    }


def test_messages_are_the_outputs_at_the_cuts() -> None:
    sizes = [(of.output_bytes, of.grad_input_bytes) for of in (costs().stage(i, i).microbatch(32) for i in range(3))]
    assert sizes == [(10, 0), (20, 10), (0, 20)]


def test_bytes_of_a_stage_in_the_middle() -> None:
    """10 bytes come in, 200 are kept, 20 go out; the input counts as part of what is kept."""
    cost = costs().stage(1, 1).microbatch(32)
    assert cost.receive_forward.memory.net_bytes == 10
    assert cost.forward.memory.net_bytes == -10 + 200 + 20
    assert cost.forward.memory.peak_bytes == -10 + 200 + 20
    assert cost.receive_backward.memory.net_bytes == 20
    assert cost.backward.memory.net_bytes == 10 - 200 - 20
    assert cost.backward.memory.peak_bytes == 10
    assert cost.input_grad.memory.net_bytes == 10
    assert cost.weight_grad.memory.net_bytes == -200 - 20


def test_an_input_that_is_not_kept_is_there_while_its_layer_runs() -> None:
    """The last layer keeps 5 of 20 bytes, and its output of 30 goes nowhere."""
    cost = costs().stage(2, 2).microbatch(32)
    assert cost.forward.memory.peak_bytes == 30
    assert cost.forward.memory.net_bytes == -20 + 5
    assert cost.backward.memory.peak_bytes == 30 + 20
    assert cost.backward.memory.net_bytes == 20 - 5


def test_what_is_taken_is_given_back() -> None:
    """Over F, SEND_F, RECV_B, B, SEND_B, and with I and W in place of B, by category."""
    for first, last in ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (0, 2)):
        cost = costs().stage(first, last).microbatch(32)
        for ways in (("backward",), ("input_grad", "weight_grad")):
            total = dict.fromkeys(Category, 0)
            total[Category.BOUNDARY] -= cost.output_bytes + cost.grad_input_bytes
            for action in ("receive_forward", "forward", "receive_backward", *ways):
                for category, change in getattr(cost, action).memory.net_by_category.items():
                    total[category] += change
            assert set(total.values()) == {0}, (first, last, ways)


def test_another_size_is_refused() -> None:
    with pytest.raises(PartitionError, match=r"t\.csv: holds the costs of microbatches of 32 examples, not of 16"):
        costs().stage(0, 1).microbatch(16)


def test_seconds_scale_with_compute_where_both_are_known() -> None:
    half, unknown = device("a", 50.0), device("b", 50.0, is_compute_known=False)
    assert costs().stage(0, 0).microbatch(32).forward.seconds(half) == 2.0
    assert costs().stage(0, 0).microbatch(32).forward.seconds(unknown) == 1.0
    assert relative_seconds(unknown, half) == 1.0


def test_devices_that_no_table_can_be_of_are_refused() -> None:
    with pytest.raises(PartitionError, match=r"cluster\.devices: b has 1e-06 FLOP/s.*check `compute`"):
        relative_seconds(device(), device("b", 1e-6))


def test_no_step_is_shorter_than_all_devices_need_together() -> None:
    assert costs().least_s(64, [device()]) == pytest.approx(2 * 21.0)
    assert costs().least_s(64, [device(), device("b", 50.0)]) == pytest.approx(2 * 21.0 / 1.5)


def test_without_two_halves_the_backward_is_not_split() -> None:
    assert costs().splits_backward
    assert not costs(splits_backward=False).splits_backward
