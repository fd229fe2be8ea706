"""Products with the Hessian of J on any split, and its largest eigenvalue, against torch's autograd on `to_torch()`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from partition.config import ExperimentConfig
from partition.costs import CostModel, step_flop
from partition.data.dataset import Dataset, load
from partition.errors import RunError
from partition.plan import Candidate
from partition.plan.curvature import CurvatureSearch
from partition.runtime import Fleet, build_module, joined
from partition.runtime.curvature import Curvature, CurvatureFleet, Iterate, largest_curvature
from tests.runtime.by_hand import find
from tests.runtime.conftest import build_config
from tests.runtime.events import peaks_by_rank, recorded
from tests.runtime.ranks import run_ranks

pytestmark = pytest.mark.slow

ACTIVATIONS = ["identity", "relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu"]
SPLITS = ["whole", "accumulate-4", "pipeline-4x4-1f1b", "pipeline-2x4-zb_h1", "pipeline-2x4-zbv",
          "data_parallel-2x1", "hybrid-2x2x2-1f1b"]  # fmt: skip


def build(config: ExperimentConfig, name: str) -> CurvatureFleet:
    search = CurvatureSearch(config)
    return CurvatureFleet(search, find(search, name))


def objective(config: ExperimentConfig, dataset: Dataset, num_examples: int) -> tuple[Callable[..., Tensor], Any]:
    """J of the parameters in plain torch, on the first examples, and those parameters."""
    reference = build_module(config.model, seed=config.training.seed, dtype=torch.float64).to_torch()
    names = [name for name, _ in reference.named_parameters()]
    x, y = (torch.from_numpy(np.asarray(of[:num_examples])) for of in (dataset.train_x, dataset.train_y))
    loss = torch.nn.functional.cross_entropy if config.model.loss == "cross_entropy" else torch.nn.functional.mse_loss

    def of(*parameters: Tensor) -> Tensor:
        outputs = torch.func.functional_call(reference, dict(zip(names, parameters, strict=True)), (x.double(),))
        weights = [value for name, value in zip(names, parameters, strict=True) if name.endswith("weight")]
        value: Tensor = loss(outputs, y if y.dtype == torch.int64 else y.double())
        return value + config.model.l2_penalty / 2 * sum(weight.square().sum() for weight in weights)

    return of, tuple(parameter.detach() for parameter in reference.parameters())


def drawn(fleet: CurvatureFleet) -> tuple[Tensor, ...]:
    """A direction, drawn, in canonical order."""
    fleet.draw_directions(5)
    found = {index: along for _, _, update in fleet._held() for index, along in update.stage.directions.items()}
    return tuple(tensor.cpu().clone() for index in sorted(found) for tensor in found[index].tensors)


def multiplied(fleet: CurvatureFleet, dataset: Dataset, num_examples: int) -> list[Tensor]:
    fleet.product(dataset.train_x, dataset.train_y, np.arange(num_examples))
    return [tensor.cpu().clone() for pair in fleet.products().values() for tensor in pair if tensor is not None]


def check(config: ExperimentConfig, names: list[str], num_examples: int = 22) -> None:
    """Equal to torch's to 1e-10, and bytes to the planner's."""
    dataset = load(config)
    of, parameters = objective(config, dataset, num_examples)
    for name in names:
        fleet = build(config, name)
        direction = drawn(fleet)
        _, expected = torch.autograd.functional.hvp(of, parameters, direction)
        for one, other in zip(multiplied(fleet, dataset, num_examples), expected, strict=True):
            assert (one - other).norm() <= 1e-10 * other.norm(), name
        assert fleet.candidate.predicted is not None
        assert tuple(fleet.peak_bytes().values()) == fleet.candidate.predicted.peak_bytes, name


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_torch_for_one_stage_and_for_four(activation: str, loss: str) -> None:
    config = build_config(activation=activation, loss=loss, number_format="float64")
    check(config, ["whole", "pipeline-4x4-1f1b"])


@pytest.mark.parametrize("name", SPLITS)
def test_equals_torch_on_any_split_schedule_and_number_of_replicas(name: str) -> None:
    """40 examples in minibatches of 22: the second is short, and the penalty enters once."""
    check(build_config(number_format="float64"), [name], num_examples=40)


@pytest.mark.parametrize(("bias", "l2_penalty"), [(False, 0.3), (True, 0.0), (False, 0.0)])
def test_equals_torch_without_bias_or_penalty(bias: bool, l2_penalty: float) -> None:
    check(
        build_config(number_format="float64", bias=bias, l2_penalty=l2_penalty), ["accumulate-4", "pipeline-3x4-1f1b"]
    )


def test_fewer_examples_than_replicas() -> None:
    """The second replica has nothing to add."""
    check_config = build_config(number_format="float64")
    dataset, fleet = load(check_config), build(check_config, "data_parallel-2x1")
    of, parameters = objective(check_config, dataset, 1)
    _, expected = torch.autograd.functional.hvp(of, parameters, drawn(fleet))
    for one, other in zip(multiplied(fleet, dataset, 1), expected, strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm()


def test_same_bits_on_any_split() -> None:
    config = build_config()
    dataset, found = load(config), []
    for name in ("accumulate-4", "pipeline-4x4-1f1b", "pipeline-2x4-zb_h1", "pipeline-2x4-zbv"):
        fleet = build(config, name)
        drawn(fleet)
        found.append(multiplied(fleet, dataset, 40))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_ledger_and_prediction_are_the_allocators_own_events() -> None:
    config = build_config()
    dataset, search = load(config), CurvatureSearch(config)
    candidate = find(search, "pipeline-4x4-1f1b")
    build(config, candidate.name).product(dataset.train_x, dataset.train_y, np.arange(22))
    with recorded() as events:
        fleet = CurvatureFleet(search, candidate)
        fleet.product(dataset.train_x, dataset.train_y, np.arange(22))
    assert candidate.predicted is not None
    found = peaks_by_rank(events)
    assert tuple(found[rank] for rank in range(4)) == candidate.predicted.peak_bytes


def counted_flop(run: Callable[[], object]) -> int:
    """Of all matrix products that torch runs, in place ones included; rows by rows, of norms, are none."""

    def in_place(_: Any, a_shape: list[int], b_shape: list[int], out_shape: Any = None) -> int:
        del out_shape
        return 2 * a_shape[0] * a_shape[1] * b_shape[1]

    def of_rows(*_: Any, **__: Any) -> int:
        return 0

    mapping = {torch.ops.aten.addmm_: in_place, torch.ops.aten.bmm: of_rows}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return counter.get_total_flops()


def test_predicted_operations_are_those_that_torch_counts() -> None:
    """Products alone: without bias and with an identity, the loss is all that is left."""
    config = build_config(activation="identity", bias=False, loss="mse", l2_penalty=0.0)
    dataset, fleet = load(config), build(config, "accumulate-4")
    trained = Fleet(fleet.search, find(fleet.search, "accumulate-4"))
    model = fleet.search.model
    of_training = CostModel(model.network, model.optimizer, model.itemsize)
    examples, outputs = np.arange(22), 22 * 5
    fleet.draw_directions(5)
    product = counted_flop(lambda: fleet.product(dataset.train_x, dataset.train_y, examples))
    gradient = counted_flop(lambda: trained.train(dataset.train_x, dataset.train_y, examples))
    assert product == step_flop(model, [22]) - (4 + 1) * outputs
    assert gradient == step_flop(of_training, [22]) - 4 * outputs


def spectrum(config: ExperimentConfig, num_examples: int) -> Tensor:
    """All eigenvalues of the Hessian of J, increasing."""
    of, parameters = objective(config, load(config), num_examples)
    rows = torch.autograd.functional.hessian(of, parameters)
    whole = torch.cat([
        torch.cat([block.reshape(one.numel(), other.numel()) for block, other in zip(row, parameters, strict=True)], 1)
        for row, one in zip(rows, parameters, strict=True)
    ])  # fmt: skip
    return torch.linalg.eigvalsh(whole)


def iterate(config: ExperimentConfig, name: str, num_examples: int, **options: Any) -> Curvature:
    dataset = load(config)
    return largest_curvature(build(config, name), dataset.train_x, dataset.train_y, np.arange(num_examples), **options)


@pytest.mark.parametrize("l2_penalty", [0.0, 3.0])
@pytest.mark.parametrize("name", ["accumulate-4", "pipeline-4x4-1f1b"])
def test_largest_eigenvalue_is_that_of_the_whole_hessian(name: str, l2_penalty: float) -> None:
    config = build_config(number_format="float64", features=(6, 5, 4, 3, 3), activation="tanh", l2_penalty=l2_penalty)
    eigenvalues = spectrum(config, 22)
    found = iterate(config, name, 22, tolerance=1e-6, max_products=5000)
    assert found.is_converged
    assert abs(found.eigenvalue - eigenvalues[-1]) <= 1e-6 * eigenvalues[-1]
    assert (found.most_negative is not None) == bool(-eigenvalues[0] > eigenvalues[-1])


def negative_config() -> ExperimentConfig:
    """Of a loss whose Hessian's eigenvalue of largest magnitude is negative."""
    return build_config(number_format="float64", features=(12, 16, 16, 5), activation="tanh", l2_penalty=0.0)


def test_where_the_largest_magnitude_is_negative_the_largest_is_found_all_the_same() -> None:
    config = negative_config()
    eigenvalues = spectrum(config, 4)
    assert -eigenvalues[0] > eigenvalues[-1] > 0, "what this test is for"
    found = iterate(config, "pipeline-3x4-1f1b", 4, tolerance=1e-5, max_products=5000)
    assert found.is_converged
    assert found.most_negative == pytest.approx(float(eigenvalues[0]), rel=1e-5)
    assert found.eigenvalue == pytest.approx(float(eigenvalues[-1]), rel=1e-4)


def test_an_iteration_that_is_cut_short_says_so_and_stays_below_the_largest() -> None:
    config = build_config(number_format="float64", l2_penalty=1.0)
    seen: list[Iterate] = []
    found = iterate(config, "whole", 22, tolerance=1e-9, max_products=4, observe=seen.append)
    assert not found.is_converged
    assert found.num_products == len(seen) == 4
    eigenvalues = spectrum(config, 22)
    assert found.eigenvalue <= eigenvalues[-1]
    assert (eigenvalues - found.eigenvalue).abs().min() <= found.residual


def test_a_hessian_of_zeros() -> None:
    """No input, no bias, no penalty: nothing bends, and nothing is divided by zero."""
    config = build_config(number_format="float64", bias=False, l2_penalty=0.0, activation="tanh")
    dataset, fleet = load(config), build(config, "whole")
    nothing = np.zeros_like(np.asarray(dataset.train_x))
    found = largest_curvature(fleet, nothing, dataset.train_y, np.arange(22))
    assert (found.eigenvalue, found.residual, found.is_converged, found.num_products) == (0.0, 0.0, True, 1)


def test_values_that_are_not_finite_end_it() -> None:
    config = build_config()
    dataset, fleet = load(config), build(config, "pipeline-2x4-1f1b")
    infinite = np.full_like(np.asarray(dataset.train_x), math.inf)
    with pytest.raises(RunError, match="product 1 with the Hessian: v·H v is nan"):
        largest_curvature(fleet, infinite, dataset.train_y, np.arange(22))


def test_a_request_to_stop_ends_it_after_the_same_product() -> None:
    found = iterate(build_config(), "whole", 22, stop_signal=lambda: 15)
    assert (found.num_products, found.is_converged, found.stop_signal) == (1, False, 15)


def run(name: str) -> tuple[Curvature, tuple[int, ...], list[int | None]]:
    """In this process or as one rank of several: the same verb's work."""
    config = build_config(planner={"num_microbatches": (4,)})
    dataset, search = load(config), CurvatureSearch(config)
    candidate: Candidate = find(search, name)
    with joined(search, candidate, dataset.num_train) as world:
        fleet = CurvatureFleet(search, candidate, world)
        found = largest_curvature(fleet, dataset.train_x, dataset.train_y, np.arange(40), max_products=20)
        assert candidate.predicted is not None
        return found, candidate.predicted.peak_bytes, list(fleet.peak_bytes().values())


@pytest.mark.parametrize("name", ["pipeline-3x4-1f1b", "pipeline-2x4-zb_h1"])
def test_processes_find_what_one_process_finds(name: str) -> None:
    expected, _, _ = run("accumulate-4")
    outcomes = run_ranks(int(name.split("-")[1][0]), run, name)
    for rank, (found, predicted, measured) in enumerate(outcomes):
        assert (found.eigenvalue, found.residual) == (expected.eigenvalue, expected.residual)
        assert found.num_products == expected.num_products
        assert measured == [predicted[rank]]


@pytest.mark.slow
def test_replicas_in_processes_find_what_they_find_in_one() -> None:
    expected, _, _ = run("hybrid-2x2x4-1f1b")
    for found, _, _ in run_ranks(4, run, "hybrid-2x2x4-1f1b"):
        assert found.eigenvalue == pytest.approx(expected.eigenvalue, rel=1e-5)
