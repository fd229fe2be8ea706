"""One process for each rank: what runs in one process runs unchanged, to the bit and to the byte."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.errors import PartitionError
from partition.plan import Search
from partition.record import Final, Metrics
from partition.runtime import Fleet, joined, train
from partition.runtime.processes import ProcessWorld
from tests.runtime.by_hand import find
from tests.runtime.conftest import build_config, in_another_order
from tests.runtime.events import peak, recorded
from tests.runtime.ranks import run_ranks

ADAM = {"name": "adam", "lr": 1e-2}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
PLANNER = {"planner": {"num_microbatches": (4,), "num_stages": (2,)}}


class Outcome(NamedTuple):
    """What a run leaves, without the seconds."""

    steps: list[tuple[str, float, float]]
    final: Final
    peaks: list[tuple[int, int | None]]
    """Predicted and measured of every rank."""
    weights: dict[int, list[np.ndarray[Any, Any]]]
    """Of the layers in this process."""


def run(changes: dict[str, Any], name: str) -> Outcome:
    """Train a candidate, in this process or as one rank of several."""
    return run_config(build_config(**changes), name)


def run_config(config: ExperimentConfig, name: str) -> Outcome:
    search, metrics, dataset = Search(config), list[Metrics](), load(config)
    candidate = find(search, name)
    with joined(search, candidate, dataset.num_train) as world:
        result = train(search, candidate, dataset, metrics.append, world=world)
        assert isinstance(result.fleet, Fleet)
        return Outcome(
            steps=[(one.loss_hex, one.grad_norm, one.penalty) for one in metrics],
            final=result.summary.final,
            peaks=[(one.predicted_peak_bytes, one.measured_peak_bytes) for one in result.summary.per_device],
            weights={
                layer: [tensor.detach().numpy() for tensor in of.tensors] for layer, of in result.fleet.layers().items()
            },
        )


@pytest.mark.parametrize(
    ("ranks", "schedule", "activation", "loss", "optimizer"),
    [
        (2, "1f1b", "gelu", "cross_entropy", SGD),
        (3, "gpipe", "relu", "mse", ADAM),
        (3, "1f1b", "identity", "cross_entropy", ADAM),
        (2, "interleaved_1f1b", "gelu", "cross_entropy", SGD),
        (3, "zb_h1", "silu", "cross_entropy", ADAM),
        (2, "zb_h2", "gelu", "mse", SGD),
        (2, "zbv", "tanh", "cross_entropy", SGD),
    ],
)
def test_processes_train_as_one_process_does(
    ranks: int, schedule: str, activation: str, loss: str, optimizer: dict[str, object]
) -> None:
    """22 examples in 4 uneven microbatches, 64 training examples: the last minibatch is short."""
    planner = {"num_microbatches": (4,)}
    changes = {"activation": activation, "loss": loss, "optimizer": optimizer, "planner": planner}
    expected = run(changes, "accumulate-4")
    outcomes = run_ranks(ranks, run, changes, f"pipeline-{ranks}x4-{schedule}")
    assert all(outcome.steps == expected.steps and outcome.final == expected.final for outcome in outcomes)
    weights = {layer: of for outcome in outcomes for layer, of in outcome.weights.items()}
    assert weights.keys() == expected.weights.keys()
    assert all(
        np.array_equal(*pair) for layer, of in weights.items() for pair in zip(of, expected.weights[layer], strict=True)
    )
    assert all(predicted == measured for outcome in outcomes for predicted, measured in outcome.peaks)


def test_processes_train_in_bfloat16_as_one_process_does() -> None:
    changes = {"number_format": "bfloat16", "planner": {"num_microbatches": (4,)}}
    expected = run(changes, "accumulate-4")
    outcomes = run_ranks(2, run, changes, "pipeline-2x4-1f1b")
    assert all(outcome.steps == expected.steps and outcome.final == expected.final for outcome in outcomes)
    assert all(predicted == measured for outcome in outcomes for predicted, measured in outcome.peaks)


def fail_within() -> tuple[bool, str]:
    """Whether the connections are closed where what runs on them fails, and what the other rank sees of it."""
    config = build_config(**PLANNER)
    search = Search(config)
    try:
        with joined(search, find(search, "pipeline-2x4-1f1b"), 64) as world:
            assert isinstance(world, ProcessWorld)
            (rank,) = world.ranks
            if rank == 1:
                raise PartitionError("rank 1 has failed")
            world.transports[1].receive(torch.empty(1), lambda: "a message").wait()
    except PartitionError as error:
        memory = world._memory
        assert memory is not None
        return all(peer.connection.fileno() == -1 for peer in memory._peers.values()), str(error)
    return False, ""


def test_connections_are_closed_where_a_rank_fails() -> None:
    """They stayed open until the process ended, and a rank that waits saw the end of another only then."""
    assert run_ranks(2, fail_within) == [
        (True, "waiting for a message: its process has closed the connection"),
        (True, "rank 1 has failed"),
    ]


def shared_numbers(max_grad_norm: float) -> tuple[list[list[float]], int]:
    """What a rank gets of the others' numbers, and the most that its allocator held for it."""
    config = build_config(**PLANNER, optimizer={**SGD, "max_grad_norm": max_grad_norm})
    search = Search(config)
    with joined(search, find(search, "pipeline-2x4-1f1b"), 64) as world:
        (rank,) = world.ranks
        with recorded() as events:
            shared = world.share(rank, np.array([rank + 0.1, np.inf, 1e300]), 0.0)
            assert shared.wait()
        return [list(values) for values in shared.values], peak(events)


def test_sharing_numbers_is_exact_and_takes_nothing_from_the_allocator() -> None:
    """Where gradients are clipped they are shared in the middle of a step; gloo's all_gather took buffers for it."""
    for values, num_bytes in run_ranks(2, shared_numbers, 1.0):
        assert values == [[0.1, np.inf, 1e300], [1.1, np.inf, 1e300]]
        assert num_bytes == 0


@pytest.mark.parametrize("name", ["pipeline-3x4-1f1b", "pipeline-2x4-zbv"])
def test_stages_on_devices_in_another_order_train_as_one_device_does(name: str) -> None:
    """The order is the planner's; in one process the clocks have the links of the devices that are neighbours."""
    config = in_another_order()
    candidate = find(Search(config), name)
    assert candidate.has_own_order
    expected = run_config(config, "accumulate-4@simulated:0")
    together = run_config(config, name)
    outcomes = run_ranks(candidate.num_devices, run_config, config, name)
    for outcome in (together, *outcomes):
        assert outcome.steps == expected.steps
        assert outcome.final == expected.final
        assert all(predicted == measured for predicted, measured in outcome.peaks)
    weights = {layer: of for outcome in outcomes for layer, of in outcome.weights.items()}
    assert all(
        np.array_equal(*pair)
        for layer, of in expected.weights.items()
        for pair in (*zip(of, weights[layer], strict=True), *zip(of, together.weights[layer], strict=True))
    )


def test_in_one_process_a_step_in_another_order_takes_what_was_predicted() -> None:
    search = Search(in_another_order())
    candidate, dataset = find(search, "pipeline-3x4-1f1b"), load(search.config)
    with joined(search, candidate, dataset.num_train) as world:
        summary = train(search, candidate, dataset, lambda _: None, world=world).summary
    assert summary.step_time is not None
    assert summary.step_time.measured_s == pytest.approx(summary.step_time.predicted_s, rel=1e-9)
