"""Training in bfloat16 on parameters, gradients and sums in float32.

Bytes are in `test_random_experiments`, bits of small networks on any split in `test_bit_identity`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.graph import ACTIVATION_RECORDS
from partition.plan import Candidate, Search
from partition.runtime import Fleet
from scripts.benchmarks.bfloat16 import LOSS_BOUND, epoch_means, largest_difference
from tests.runtime.by_hand import find
from tests.runtime.events import peaks_by_rank, recorded, without_scratch
from tests.runtime.random_experiments import recomputing
from tests.runtime.test_bit_identity import BLOCKS

Make = Callable[..., ExperimentConfig]
WIDE = {"features": (96, 160, 130, 144, 10), "minibatch_size": 64, "number_format": "bfloat16"}
"""Large enough for the kernels of oneDNN, where the processor has them."""


def train_two_steps(config: ExperimentConfig, candidate: Callable[[Search], Candidate]) -> tuple[Fleet, list[float]]:
    search, dataset = Search(config), load(config)
    fleet, size = Fleet(search, candidate(search)), config.training.minibatch_size
    results = [fleet.train(dataset.train_x, dataset.train_y, np.arange(size)) for _ in range(2)]
    return fleet, [number for one in results for number in (one.loss, one.grad_norm, one.penalty)]


def gradients(fleet: Fleet) -> list[torch.Tensor]:
    return [parameter.grad for parameter in fleet.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("activation", sorted(ACTIVATION_RECORDS))
def test_a_step_is_that_of_float32_to_two_digits(make_config: Make, activation: str) -> None:
    found = {}
    for number_format in ("bfloat16", "float32"):
        changes = {"activation": activation, "number_format": number_format, "planner": {"num_microbatches": (3,)}}
        fleet, numbers = train_two_steps(make_config(**changes), lambda search: find(search, "accumulate-3"))
        found[number_format] = (torch.cat([one.flatten().double() for one in gradients(fleet)]), numbers)
    (narrow, numbers), (wide, expected) = found["bfloat16"], found["float32"]
    assert numbers == pytest.approx(expected, rel=0.02)
    assert float((narrow - wide).norm() / wide.norm()) < 0.03


def test_parameters_gradients_and_optimizer_are_float32_what_is_kept_is_not(make_config: Make) -> None:
    config = make_config(number_format="bfloat16", optimizer={"name": "adam", "lr": 1e-2})
    fleet, _ = train_two_steps(config, lambda search: find(search, "whole"))
    (update,) = fleet.workers[0].updates.values()
    state = [tensor for of in update.optimizer.state.values() for tensor in of.values()]
    tensors = [*fleet.parameters(), *gradients(fleet), *state, update.stage.losses_M]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert not all(torch.equal(tensor.bfloat16().float(), tensor) for tensor in fleet.parameters())


def test_gradients_of_microbatches_are_added_in_float32(make_config: Make) -> None:
    """Each microbatch's is one product in bfloat16; many small ones would be lost in a sum of that format."""
    planner = {"num_microbatches": (22,)}
    config = make_config(number_format="bfloat16", planner=planner, l2_penalty=0.0, minibatch_size=22)
    fleet, _ = train_two_steps(config, lambda search: find(search, "accumulate-22"))
    assert all(not torch.equal(gradient.bfloat16().float(), gradient) for gradient in gradients(fleet))


def test_logits_come_as_float32_that_hold_bfloat16(make_config: Make) -> None:
    config = make_config(number_format="bfloat16")
    fleet, _ = train_two_steps(config, lambda search: find(search, "whole"))
    logits = torch.from_numpy(np.concatenate(list(fleet.predict(load(config).test_x))))
    assert logits.dtype == torch.float32
    assert torch.equal(logits.bfloat16().float(), logits)
    assert logits.unique().numel() > 20


@pytest.mark.parametrize("blocks", [None, BLOCKS])
def test_large_products_have_the_same_bits_on_any_split_recomputed_or_not(make_config: Make, blocks: Any) -> None:
    planner = {"num_microbatches": (2,), "num_stages": (2, 4), "schedules": ("1f1b", "zb_h1")}
    config = make_config(**WIDE, planner=planner, **({"blocks": blocks} if blocks else {}))
    reference, expected = train_two_steps(config, lambda search: find(search, "accumulate-2"))

    def recomputed(search: Search) -> Candidate:
        return recomputing(search, find(search, "pipeline-2x2-1f1b"), 3)

    ways: list[Callable[[Search], Candidate]] = [recomputed]
    ways += [
        lambda search, name=name: find(search, name)  # type: ignore[misc]
        for name in ("pipeline-2x2-zb_h1", "pipeline-4x2-1f1b")
    ]
    for way in ways:
        fleet, numbers = train_two_steps(config, way)
        assert numbers == expected
        assert all(torch.equal(*pair) for pair in zip(fleet.parameters(), reference.parameters(), strict=True))


def test_bytes_of_large_products_are_predicted_and_scratch_is_apart(make_config: Make) -> None:
    config = make_config(**WIDE, planner={"num_microbatches": (2,), "num_stages": (2,)})
    search = Search(config)
    candidate = find(search, "pipeline-2x2-1f1b")
    assert candidate.predicted is not None
    gc.collect()
    with recorded() as events:
        train_two_steps(config, lambda _: candidate)
    ours, scratch_bytes = without_scratch(events)
    assert peaks_by_rank(ours) == dict(enumerate(candidate.predicted.peak_bytes))
    assert scratch_bytes < 2**20


def test_less_is_kept_and_sent_than_in_float32(make_config: Make) -> None:
    bytes_of = {}
    for number_format in ("float32", "bfloat16"):
        search = Search(make_config(**{**WIDE, "number_format": number_format}))
        cost = search.model.stage(1, 2).microbatch(25)
        bytes_of[number_format] = (cost.forward.memory.net_bytes, cost.output_bytes, cost.grad_input_bytes)
        assert search.model.stage(1, 2).parameter_bytes == 4 * search.model.stage(1, 2).parameter_elements
    assert [2 * narrow for narrow in bytes_of["bfloat16"]] == list(bytes_of["float32"])


@pytest.mark.slow
def test_epoch_mean_losses_are_within_two_percent_of_float32(make_config: Make) -> None:
    """Three seeds on mnist5k, four epochs each."""
    rows = []
    for seed in range(3):
        losses: dict[str, list[float]] = {}
        for number_format in ("float32", "bfloat16"):
            config = make_config(
                features=(784, 256, 256, 256, 10),
                number_format=number_format,
                minibatch_size=500,
                planner={"num_microbatches": (2,)},
                l2_penalty=1e-4,
            )
            training = config.training.model_copy(update={"steps": None, "epochs": 4, "seed": seed})
            data = config.data.model_copy(update={"source": "mnist5k", "num_examples": None})
            config = config.model_copy(update={"training": training, "data": data})
            means, _ = epoch_means(config, "accumulate-2")
            losses |= means.named(number_format)
            assert all(j > loss for loss, j in zip(means.losses, means.objectives, strict=True)), "there is a penalty"
        assert losses["float32_losses"][-1] < losses["float32_losses"][0] / 4, "it learns"
        assert losses["bfloat16_losses"] != losses["float32_losses"]
        rows.append(losses)
    assert largest_difference(rows) < LOSS_BOUND
