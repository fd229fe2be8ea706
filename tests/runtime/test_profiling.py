"""What a profile holds of layers, and what only a GPU's has."""

from __future__ import annotations

import pytest

from partition.config import ExperimentConfig
from partition.plan import Candidate, Search
from partition.runtime import profiling
from partition.runtime.profiling import Layers, measure_layers
from partition.runtime.timing import TimedStep
from partition.runtime.world import LocalWorld
from tests.runtime.conftest import build_config

SIZES = (1, 2, 3, 6, 11, 22)
"""Of the microbatches of a minibatch of 22."""
ACTIONS_OF = {"1f1b": 2, "zb_h1": 3}


class ByTheClock:
    """Steps of 1 s of an operator and a rest of 0.4 s and 0.1 s an action; half of all that without marks."""

    def __init__(self, _: Search, candidate: Candidate) -> None:
        self._num_actions = ACTIONS_OF[candidate.schedule] * candidate.num_microbatches

    def step(self) -> TimedStep:
        rest_s = 0.4 + 0.1 * self._num_actions
        return TimedStep(operators_s={"affine": 1.0}, update_s=0.0, rest_s=rest_s,
                         num_actions=self._num_actions, total_s=1.0 + rest_s)  # fmt: skip

    def step_s(self, *, is_marked: bool = True) -> float:
        return self.step().total_s / (1 if is_marked else 2)


def measured(monkeypatch: pytest.MonkeyPatch, config: ExperimentConfig) -> Layers:
    monkeypatch.setattr(profiling, "Runner", ByTheClock)
    return measure_layers(config, LocalWorld(1, 1), 2**30, budget_s=0.01)


def test_every_operator_is_measured_at_every_size_that_fits() -> None:
    layers = measure_layers(build_config(), LocalWorld(1, 1), 2**30, budget_s=0.01)
    assert {of.sizes for of in layers.operators.values()} == {SIZES}


def test_on_a_cpu_marks_are_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = measured(monkeypatch, build_config())
    assert layers.operators["affine"].seconds == (1.0,) * len(SIZES)
    assert layers.overheads.action_s == pytest.approx(0.1)
    assert layers.overheads.step_s == pytest.approx(0.4)
    assert layers.overheads.exposed is None


def test_on_a_gpu_what_marks_take_is_taken_off_and_the_rest_of_every_size_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps without marks take half; of the rest the step's, as a tiny network has it, is no action's."""
    config = build_config()
    device = config.cluster.devices[0].model_copy(update={"kind": "cuda"})
    cluster = config.cluster.model_copy(update={"devices": (device,)})
    layers = measured(monkeypatch, config.model_copy(update={"cluster": cluster}))
    assert layers.operators["affine"].seconds == (0.5,) * len(SIZES)
    assert layers.overheads.exposed is not None
    assert layers.overheads.exposed.sizes == SIZES
    few, many = layers.overheads.exposed.seconds[-1], layers.overheads.exposed.seconds[0]
    assert few == 0.0  # one microbatch: (0.4 + 0.25) / 2 is less than the step's 0.4
    assert many == pytest.approx(((0.4 + 0.25 * 8) / 2 - 0.4) / (2.5 * 8))
