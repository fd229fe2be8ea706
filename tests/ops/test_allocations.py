"""Memory is predicted to the byte, so no pair may allocate anything that it is not given.

Shapes: B examples of a microbatch, I features in, O features out (of the last layer: outputs).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from partition.graph import ACTIVATION_RECORDS, LOSS_RECORDS
from partition.ops import (
    ACTIVATIONS,
    LOSSES,
    Activation,
    affine,
    affine_bias_grad,
    affine_example_norms,
    affine_input_grad,
    affine_weight_grad,
)
from partition.ops import normalisation as norms
from partition.ops.cross_entropy import weighted_cross_entropy, weighted_cross_entropy_tangent
from partition.ops.dropout import MaskKey, drop
from partition.ops.gate import gated, gated_grad
from partition.ops.norms import norm_example_norms

SHAPES = [(1, 1, 1), (1, 5, 3), (7, 1, 5), (7, 5, 1), (500, 784, 10), (100, 1024, 512), (3, 2, 70_000), (1, 70_000, 2),
          (70_000, 2, 1), (70_000, 1, 3), (32_768, 1, 1)]  # fmt: skip
Buffers = SimpleNamespace


def make_buffers(B: int, I: int, O: int, dtype: torch.dtype) -> Buffers:  # noqa: E741
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype)

    return Buffers(
        x_BI=normal(B, I), weight_OI=normal(O, I), bias_O=normal(O), z_BO=normal(B, O), h_BO=normal(B, O),
        grad_z_BO=normal(B, O), grad_x_BI=normal(B, I), grad_weight_OI=normal(O, I), grad_bias_O=normal(O),
        second_BO=normal(B, O), third_BO=normal(B, O), sum_BO=normal(B, O),
        workspace_O=normal(O), workspace_B2=normal(B, 2), statistics_B3=normal(B, 3), loss=normal(),
        pieces=normal(max(1, 2**16 // O) * O), classes_B=torch.randint(O, (B,)),
    )  # fmt: skip


def run_loss(name: str, b: Buffers) -> None:
    record = LOSS_RECORDS[name]
    targets = b.classes_B if record.has_class_targets else b.h_BO
    grad_o = b.z_BO if record.is_in_place else b.grad_z_BO
    workspace = b.workspace_B2.view(2, -1)[: record.workspace_columns].view(len(b.z_BO), -1)
    LOSSES[name].forward(b.z_BO, targets, 0.01, grad_o, workspace, b.loss)


def run_weighted_cross_entropy(label_smoothing: float, b: Buffers) -> None:
    options = {"class_weights_q": b.bias_O, "sum_of_weights": 2.0, "label_smoothing": label_smoothing}
    weighted_cross_entropy(b.z_BO, b.classes_B, 0.01, b.grad_z_BO, b.workspace_B2, b.loss, **options)


def run_backward(activation: Activation, b: Buffers) -> None:
    workspace = (b.h_BO,) if ACTIVATION_RECORDS[activation.name].has_workspace else ()
    activation.backward(b.grad_z_BO, b.z_BO, *workspace)


def run_weight_grad(is_first: bool, b: Buffers) -> None:
    affine_weight_grad(b.x_BI, b.grad_z_BO, is_first, b.grad_weight_OI)


def run_norm(has_mean: bool, b: Buffers) -> None:
    statistics_3B = b.statistics_B3.view(3, -1)
    norms.standardise(b.z_BO, has_mean, 1e-5, b.sum_BO, statistics_3B)
    norms.norm_weight_grad(b.sum_BO, b.grad_z_BO, True, b.grad_bias_O, b.second_BO, b.workspace_O)
    norms.norm_input_grad(b.sum_BO, b.grad_z_BO, b.bias_O, has_mean, b.second_BO, statistics_3B)
    norms.rescale(b.sum_BO, b.bias_O, b.grad_bias_O)


def run_example_norms(has_bias: bool, b: Buffers) -> None:
    affine_example_norms(b.x_BI, b.grad_z_BO, has_bias, b.workspace_B2.view(2, -1), b.loss)


def run_norm_of_norms(b: Buffers) -> None:
    norm_example_norms(b.z_BO, b.grad_z_BO, b.statistics_B3.view(3, -1), b.loss)
    norm_example_norms(b.z_BO, None, b.statistics_B3.view(3, -1), b.loss)


def run_second(name: str, b: Buffers) -> None:
    second = ACTIVATIONS[name].second
    assert second is not None
    workspaces = [b.second_BO, b.third_BO][: ACTIVATION_RECORDS[name].second_workspaces]
    second.add(b.grad_z_BO, b.z_BO, b.h_BO, b.sum_BO, workspaces, b.loss)


def run_tangent(name: str, b: Buffers) -> None:
    targets = b.classes_B if LOSS_RECORDS[name].has_class_targets else b.h_BO
    workspace = b.workspace_B2.view(2, -1)[: LOSS_RECORDS[name].workspace_columns].view(len(b.z_BO), -1)
    LOSSES[name].tangent(b.z_BO, targets, 0.01, b.grad_z_BO, b.second_BO, workspace, b.loss)


def run_weighted_tangent(b: Buffers) -> None:
    options = {"class_weights_q": b.bias_O, "sum_of_weights": 2.0, "label_smoothing": 0.1}
    weighted_cross_entropy_tangent(
        b.z_BO, b.classes_B, 0.01, b.grad_z_BO, b.second_BO, b.workspace_B2, b.loss, **options
    )


PAIRS: dict[str, Callable[[Buffers], None]] = {
    "affine": lambda b: affine(b.x_BI, b.weight_OI, b.bias_O, b.z_BO),
    "affine without bias": lambda b: affine(b.x_BI, b.weight_OI, None, b.z_BO),
    "input gradient": lambda b: affine_input_grad(b.grad_z_BO, b.weight_OI, b.grad_x_BI),
    "weight gradient, first": lambda b: run_weight_grad(True, b),
    "weight gradient, later": lambda b: run_weight_grad(False, b),
    "bias gradient, first": lambda b: affine_bias_grad(b.grad_z_BO, True, b.grad_bias_O, b.workspace_O),
    "bias gradient, later": lambda b: affine_bias_grad(b.grad_z_BO, False, b.grad_bias_O, b.workspace_O),
    "example norms": lambda b: run_example_norms(True, b),
    "example norms without bias": lambda b: run_example_norms(False, b),
    "example norms of a norm": run_norm_of_norms,
    **{f"{name} loss": lambda b, name=name: run_loss(name, b) for name in LOSSES},
    **{name: lambda b, a=a: a.forward(b.z_BO, b.h_BO) for name, a in ACTIVATIONS.items()},
    **{f"{name} in place": lambda b, a=a: a.forward(b.z_BO, b.z_BO) for name, a in ACTIVATIONS.items()},
    **{f"{name} backward": lambda b, a=a: run_backward(a, b) for name, a in ACTIVATIONS.items()},
    "cross_entropy with class weights": lambda b: run_weighted_cross_entropy(0.0, b),
    "cross_entropy with smoothed labels": lambda b: run_weighted_cross_entropy(0.1, b),
    "cross_entropy with smoothed labels, tangent": run_weighted_tangent,
    "layer_norm": lambda b: run_norm(True, b),
    "rms_norm": lambda b: run_norm(False, b),
    "gate": lambda b: gated(b.z_BO, b.h_BO, b.sum_BO),
    "gate gradient": lambda b: gated_grad(b.z_BO, b.h_BO, b.grad_z_BO, b.sum_BO),
    "dropout": lambda b: drop(b.z_BO, 0.1, MaskKey(0, 1, 0, 0), b.h_BO, b.pieces),
    **{f"{name} second": lambda b, n=name: run_second(n, b) for name, a in ACTIVATIONS.items() if a.second},
    **{f"{name} tangent": lambda b, n=name: run_tangent(n, b) for name in LOSSES},
}


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=str)
def buffers(request: pytest.FixtureRequest) -> list[Buffers]:
    return [make_buffers(*shape, request.param) for shape in SHAPES]


@pytest.mark.parametrize("pair", PAIRS)
def test_nothing_is_allocated(pair, buffers, num_threads, allocator_events):
    events = allocator_events(lambda: [PAIRS[pair](b) for b in buffers])
    assert torch.get_num_threads() == num_threads
    assert events == []


def test_the_probe_sees_what_the_pairs_avoid(allocator_events):
    """Without this the test above could not fail."""
    x, loss = torch.ones(70_000), torch.empty(())
    assert allocator_events(lambda: x.clone()) == [280_000, -280_000]
    assert allocator_events(lambda: x.mul_(0.5)) == [8, 4, -4, -8], "a Python number becomes two tensors"
    assert allocator_events(lambda: torch.dot(x, x, out=loss)) == [4, -4], "the result is computed aside"


def test_the_probe_sees_a_sum_take_a_buffer_per_thread(num_threads, allocator_events):
    x_B1, sum_1 = torch.ones(32_768, 1), torch.empty(1)
    expected = [] if num_threads == 1 else [4 * num_threads, -4 * num_threads]
    assert allocator_events(lambda: torch.sum(x_B1, 0, out=sum_1)) == expected
