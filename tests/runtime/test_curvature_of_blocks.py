"""Products with the Hessian of J of blocks on any split against torch's autograd on `to_torch()`, and their bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from partition.config import ExperimentConfig
from partition.costs.second_order import pair_work
from partition.data.dataset import Dataset, load
from partition.errors import PartitionError
from partition.graph.pair_operators import PairAddInputGrad, PairAffine, PairInputGrad, PairWeightGrad
from partition.graph.program import operators
from partition.plan.curvature import CurvatureSearch
from partition.runtime import build_module
from partition.runtime.curvature import CurvatureFleet, largest_curvature
from tests.runtime.by_hand import find
from tests.runtime.conftest import build_config
from tests.runtime.events import peaks_by_rank, recorded
from tests.runtime.random_experiments import candidate_of, random_blocks, random_experiment
from tests.runtime.test_curvature import counted_flop
from tests.runtime.test_random_experiments import with_slow

CASES: dict[str, tuple[dict[str, Any], ...]] = {
    "residual": ({"residual": {"hidden": 9}}, {"residual": {"hidden": 5, "activation": "tanh"}, "repeat": 3}),
    "norms": (
        {"norm": "layer_norm"},
        {"linear": 9, "norm": "rms_norm", "activation": "gelu", "dropout": 0.3},
        {"residual": {"norm": "layer_norm", "hidden": 7, "activation": "silu"}, "repeat": 2},
        {"norm": "rms_norm"},
    ),
    "swiglu": (
        {"linear": 6, "activation": "softplus"},
        {"residual": {"norm": "rms_norm", "swiglu": 5}, "repeat": 2},
        {"residual": {"swiglu": 4, "dropout": 0.1}},
        {"norm": "layer_norm"},
    ),
    "swiglu first": ({"residual": {"swiglu": 7}}, {"linear": 4, "activation": "tanh"}, {"norm": "layer_norm"}),
    "norms after tanh": (
        {"linear": 6, "activation": "tanh"},
        {"residual": {"norm": "layer_norm", "hidden": 5}},
        {"norm": "rms_norm"},
        {"norm": "layer_norm"},
    ),
}
PLANNER = {"num_microbatches": (4,), "num_stages": (2, 4)}
FAST = range(3)
"""Random networks of the fast suite; others are slow tests."""


def objective(config: ExperimentConfig, dataset: Dataset, num_examples: int) -> tuple[Callable[..., Tensor], Any]:
    """J of the parameters in plain torch, nothing dropped, on the first examples, and those parameters."""
    reference = build_module(config.model, seed=config.training.seed, dtype=torch.float64).to_torch().eval()
    names = [name for name, _ in reference.named_parameters()]
    x, y = (torch.from_numpy(np.asarray(of[:num_examples])) for of in (dataset.train_x, dataset.train_y))

    def of(*parameters: Tensor) -> Tensor:
        outputs = torch.func.functional_call(reference, dict(zip(names, parameters, strict=True)), (x.double(),))
        penalty = sum(value.square().sum() for value in parameters if value.dim() == 2)
        return nn.functional.cross_entropy(outputs, y) + config.model.l2_penalty / 2 * penalty

    return of, tuple(parameter.detach() for parameter in reference.parameters())


def directions_of(parameters: tuple[Tensor, ...], fleet: CurvatureFleet) -> dict[int, tuple[Tensor, Tensor | None]]:
    """A direction for every part, drawn by the test."""
    generator = torch.Generator().manual_seed(7)
    drawn = iter([torch.randn(of.shape, dtype=of.dtype, generator=generator) for of in parameters])
    parts = [part for unit in fleet.search.network.layers for part in unit.weighted]
    return {part.index: (next(drawn), next(drawn) if part.has_bias else None) for part in parts}


def check(config: ExperimentConfig, names: list[str], num_examples: int = 22) -> None:
    """Equal to torch's to 1e-10, and bytes to the planner's."""
    dataset = load(config)
    of, parameters = objective(config, dataset, num_examples)
    for name in names:
        search = CurvatureSearch(config)
        fleet = CurvatureFleet(search, find(search, name))
        directions = directions_of(parameters, fleet)
        fleet.set_directions(directions)
        flat = tuple(tensor for pair in directions.values() for tensor in pair if tensor is not None)
        _, expected = torch.autograd.functional.hvp(of, parameters, flat)
        fleet.product(dataset.train_x, dataset.train_y, np.arange(num_examples))
        found = [tensor for pair in fleet.products().values() for tensor in pair if tensor is not None]
        whole = torch.cat([one.flatten() for one in expected]).norm()
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm() <= 1e-10 * whole, name
        assert fleet.candidate.predicted is not None
        assert tuple(fleet.peak_bytes().values()) == fleet.candidate.predicted.peak_bytes, name


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_equals_torch_for_one_stage_and_for_several(case: str, bias: bool) -> None:
    config = build_config(blocks=CASES[case], bias=bias, number_format="float64", planner=PLANNER)
    last = "pipeline-2x4-1f1b" if case == "swiglu first" else "pipeline-4x4-1f1b"
    check(config, ["accumulate-4", last])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipeline-2x4-zb_h1", "pipeline-2x4-zbv", "data_parallel-2x4", "hybrid-2x2x4-1f1b"])
def test_equals_torch_on_any_schedule_and_number_of_replicas(name: str) -> None:
    """40 examples in minibatches of 22: the second is short, and the penalty enters once."""
    check(build_config(blocks=CASES["norms"], number_format="float64", planner=PLANNER), [name], num_examples=40)


@pytest.mark.parametrize("seed", with_slow(FAST, range(60)))
def test_random_blocks_equal_torch(seed: int) -> None:
    choose = random.Random(seed)
    blocks = random_blocks(choose, choose.randint(3, 6))
    config = build_config(blocks=blocks, bias=choose.random() < 0.5, number_format="float64", planner=PLANNER,
                          l2_penalty=choose.choice([0.0, 0.1]))  # fmt: skip
    check(config, [choose.choice(["accumulate-4", "pipeline-4x4-1f1b", "pipeline-2x4-zb_h1"])])


@pytest.mark.parametrize("seed", with_slow(FAST, range(120)))
def test_predicted_peak_is_the_allocators(seed: int) -> None:
    config, name = random_experiment(seed, has_blocks=True)
    search, dataset = CurvatureSearch(config), load(config)
    if name.startswith("shrink") or not any(one.name == name for one in search.candidates()):
        name = next(one.name for one in search.candidates() if one.stages)
    candidate = candidate_of(search, name)
    assert candidate.predicted is not None
    with recorded() as events:
        fleet = CurvatureFleet(search, candidate)
        for size in (candidate.minibatch_size, candidate.minibatch_size, max(1, candidate.minibatch_size // 2)):
            fleet.product(dataset.train_x, dataset.train_y, np.arange(size))
    predicted = dict(enumerate(candidate.predicted.peak_bytes))
    assert peaks_by_rank(events) == predicted
    assert fleet.peak_bytes() == predicted


@pytest.mark.parametrize("name", ["whole", "pipeline-2x4-1f1b"])
def test_directions_are_those_that_are_set_and_of_the_parameters_shapes(name: str) -> None:
    """A unit vector gives a column of the Hessian; what does not fit is named before anything runs."""
    config = build_config(blocks=CASES["residual"], number_format="float64", planner=PLANNER)
    dataset, search = load(config), CurvatureSearch(config)
    fleet = CurvatureFleet(search, find(search, name))
    of, parameters = objective(config, dataset, 22)
    directions = directions_of(tuple(map(torch.zeros_like, parameters)), fleet)
    directions = {at: (weight * 0, None if bias is None else bias * 0) for at, (weight, bias) in directions.items()}
    directions[2][0][1, 3] = 1.0
    fleet.set_directions(directions)
    fleet.product(dataset.train_x, dataset.train_y, np.arange(22))
    flat = tuple(tensor for pair in directions.values() for tensor in pair if tensor is not None)
    _, expected = torch.autograd.functional.hvp(of, parameters, flat)
    torch.testing.assert_close(fleet.products()[2][0], expected[4], rtol=1e-10, atol=1e-12)
    for wrong, message in (
        ((torch.zeros(3), None), r"weight of layer 2 has shape \(3,\), the parameter \(5, 12\); give"),
        ((directions[2][0], None), r"bias of layer 2 has shape None, the parameter \(5,\)"),
    ):
        with pytest.raises(PartitionError, match=message):
            fleet.set_directions({**directions, 2: wrong})
    with pytest.raises(PartitionError, match="weight of layer 0 has shape None"):
        fleet.set_directions({})


@pytest.mark.slow
def test_predicted_products_are_those_that_torch_counts() -> None:
    """Of matrices; rows by rows, of norms, are not products of matrices."""
    config = build_config(blocks=CASES["swiglu"], bias=False, planner=PLANNER)
    dataset, search = load(config), CurvatureSearch(config)
    fleet = CurvatureFleet(search, find(search, "accumulate-4"))
    stage = search.model.stage(0, search.network.num_layers - 1)
    kinds = (PairAffine, PairInputGrad, PairWeightGrad, PairAddInputGrad)
    predicted = sum(
        pair_work(one, 22, 4, search.network.loss)[0]
        for program in (stage.program.forward, stage.program.backward)
        for one in operators(program)
        if isinstance(one, kinds)
    )
    fleet.draw_directions(5)
    assert counted_flop(lambda: fleet.product(dataset.train_x, dataset.train_y, np.arange(22))) == predicted


@pytest.mark.slow
def test_same_bits_on_any_split() -> None:
    config = build_config(blocks=CASES["norms"], planner=PLANNER)
    dataset, found = load(config), []
    for name in ("accumulate-4", "pipeline-4x4-1f1b", "pipeline-2x4-zb_h1", "pipeline-2x4-zbv"):
        search = CurvatureSearch(config)
        fleet = CurvatureFleet(search, find(search, name))
        fleet.draw_directions(5)
        fleet.product(dataset.train_x, dataset.train_y, np.arange(40))
        found.append([tensor.clone() for pair in fleet.products().values() for tensor in pair if tensor is not None])
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


@pytest.mark.slow
def test_largest_eigenvalue_is_that_of_the_whole_hessian() -> None:
    blocks = ({"norm": "layer_norm"}, {"residual": {"norm": "rms_norm", "swiglu": 3}}, {"linear": 3})
    config = build_config(number_format="float64", features=(4, 3), blocks=blocks, num_devices=2, planner=PLANNER)
    dataset, search = load(config), CurvatureSearch(config)
    of, parameters = objective(config, dataset, 22)
    rows = torch.autograd.functional.hessian(of, parameters)
    whole = torch.cat([
        torch.cat([block.reshape(one.numel(), other.numel()) for block, other in zip(row, parameters, strict=True)], 1)
        for row, one in zip(rows, parameters, strict=True)
    ])  # fmt: skip
    largest = float(torch.linalg.eigvalsh(whole)[-1])
    fleet = CurvatureFleet(search, find(search, "pipeline-2x4-1f1b"))
    found = largest_curvature(fleet, dataset.train_x, dataset.train_y, np.arange(22), tolerance=1e-6, max_products=5000)
    assert found.is_converged
    assert found.eigenvalue == pytest.approx(largest, rel=1e-6)
