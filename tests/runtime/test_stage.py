"""One stage: its programs as a node of autograd, and what it holds between its actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from partition.config import ExperimentConfig
from partition.costs import Device
from partition.graph import Category, build_network, build_stage_program
from partition.runtime.device import RuntimeDevice
from partition.runtime.parameters import initialise, take_parameters
from partition.runtime.stage import Frame, Stage

Make = Callable[..., ExperimentConfig]
ROWS, ITEM = 3, 8
FEATURES = (12, 10, 9, 8, 5)
PRE_ACTIVATION = ["gelu", "gelu_tanh", "silu"]
OUTPUT = ["relu", "tanh", "sigmoid"]


def build_stage(config: ExperimentConfig, first: int, last: int) -> tuple[Stage, RuntimeDevice]:
    """A stage in float64 on a roomy device, its parameters drawn."""
    spec = Device(name="simulated:0", kind="simulated", memory_bytes=2**30, flop_per_s=1.0, memory_bytes_per_s=1.0,
                  source="test")  # fmt: skip
    network, device = build_network(config.model), RuntimeDevice(spec, torch.float64)
    program = build_stage_program(network, first, last)
    layers = {layer.index: take_parameters(layer, device) for layer in program.layers}
    initialise(program.layers, layers, 0)
    return Stage(network, program, device, layers, 1), device


def feed(variable: str, microbatch: int, into: torch.Tensor) -> None:
    """Inputs from a seed; targets of class 0."""
    if variable == "x":
        into.normal_(generator=torch.Generator().manual_seed(microbatch))
    else:
        into.zero_()


def begin(stage: Stage, *, microbatch: int = 0) -> Frame:
    """A frame that holds the stage's input, if it comes from elsewhere."""
    frame = Frame(microbatch=microbatch, rows=ROWS, weight=1 / ROWS, is_first=True, feed=feed)
    if not stage.program.is_first:
        feed("x", 0, stage.receive(stage.program.input, frame))
    return frame


def receive_gradient(stage: Stage, frame: Frame) -> torch.Tensor:
    assert stage.program.grad_output is not None
    return stage.receive(stage.program.grad_output, frame).fill_(0.5)


def activation_columns(device: RuntimeDevice) -> float:
    """Columns of all tensors of a microbatch that the device holds."""
    kinds = (Category.ACTIVATIONS, Category.BOUNDARY, Category.DATA)
    return sum(device.held_by_category.get(kind, 0) for kind in kinds) / (ROWS * ITEM)


@pytest.mark.parametrize("activation", [*PRE_ACTIVATION, *OUTPUT])
def test_one_tensor_per_layer_stands_between_forward_and_backward(make_config: Make, activation: str) -> None:
    """The input and what the activations keep; the last layer's output has become its gradient."""
    stage, device = build_stage(make_config(activation=activation), 0, 3)
    stage.forward(begin(stage))
    assert activation_columns(device) == 12 + 10 + 9 + 8 + 5


def test_identity_keeps_the_inputs_of_its_layers_only(make_config: Make) -> None:
    stage, device = build_stage(make_config(activation="identity"), 1, 2)
    frame = begin(stage)
    stage.forward(frame)
    stage.give_back(stage.program.output, frame)
    assert activation_columns(device) == 10 + 9


@pytest.mark.parametrize("activation", [*PRE_ACTIVATION, *OUTPUT, "identity"])
def test_input_and_gradient_of_every_layer_stand_between_i_and_w(make_config: Make, activation: str) -> None:
    stage, device = build_stage(make_config(activation=activation), 0, 3)
    frame = begin(stage)
    stage.forward(frame)
    stage.backward(frame, is_split=True)
    assert activation_columns(device) == (12 + 10 + 9 + 8) + (10 + 9 + 8 + 5)


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
@pytest.mark.parametrize(("first", "last"), [(0, 3), (0, 1), (1, 2), (2, 3)])
def test_nothing_is_left_when_a_microbatch_is_done(
    make_config: Make, first: int, last: int, activation: str, is_split: bool
) -> None:
    stage, device = build_stage(make_config(activation=activation), first, last)
    static, frame, program = device.held_bytes, begin(stage), stage.program
    stage.forward(frame)
    if not program.is_last:
        if not program.is_output_kept:
            stage.give_back(program.output, frame)
        receive_gradient(stage, frame)
    stage.backward(frame, is_split=is_split)
    if is_split:
        stage.weight_grad(frame)
    if program.grad_input is not None:
        stage.give_back(program.grad_input, frame)
    assert device.held_bytes == static
    assert frame.tensors == {}


def test_the_first_stage_computes_no_input_gradient(make_config: Make) -> None:
    stage, _ = build_stage(make_config(), 0, 1)
    frame = begin(stage)
    stage.forward(frame)
    receive_gradient(stage, frame)
    stage.backward(frame, is_split=True)
    assert set(frame.tensors) == {"x", "z0", "g0", "g1", "h1"}


@pytest.mark.parametrize("activation", ["gelu", "tanh", "identity"])
def test_a_middle_stage_has_the_gradients_of_autograd(make_config: Make, activation: str) -> None:
    stage, _ = build_stage(make_config(activation=activation, l2_penalty=0.0), 1, 2)
    frame, functions = begin(stage), {"gelu": torch.nn.functional.gelu, "tanh": torch.tanh, "identity": lambda x: x}
    x = frame.tensors["x"].detach().clone().requires_grad_()
    parameters = [parameter.detach().clone().requires_grad_() for parameter in stage.parameters]
    h = x
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        h = functions[activation](torch.nn.functional.linear(h, weight, bias))
    y = stage.forward(frame).clone()
    grad = receive_gradient(stage, frame).clone()
    stage.backward(frame, is_split=False)
    expected = torch.autograd.grad(h, [x, *parameters], grad)
    assert stage.program.grad_input is not None
    actual = [frame.tensors[stage.program.grad_input.name], *(parameter.grad for parameter in stage.parameters)]
    for one, other in zip([y, *actual], [h.detach(), *expected], strict=True):
        assert one is not None
        assert torch.linalg.vector_norm(one - other) <= 1e-12 * torch.linalg.vector_norm(other)


def test_only_the_first_microbatch_overwrites_the_gradients(make_config: Make) -> None:
    """And with them the penalty enters once."""
    stage, _ = build_stage(make_config(l2_penalty=0.0), 0, 3)

    def accumulate(is_first: bool) -> torch.Tensor:
        frame = begin(stage)
        frame.is_first = is_first
        stage.forward(frame)
        stage.backward(frame, is_split=False)
        return stage.layers[0].grad_weight_OI.clone()

    once = accumulate(True)
    assert torch.equal(accumulate(True), once)
    assert torch.allclose(accumulate(False), 2 * once, rtol=1e-12)


@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
def test_prediction_leaves_its_output_and_nothing_else(make_config: Make, activation: str) -> None:
    stage, device = build_stage(make_config(activation=activation), 0, 3)
    stage.predict(begin(stage))
    assert activation_columns(device) == FEATURES[-1]


@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
def test_prediction_gives_what_the_forward_sends(make_config: Make, activation: str) -> None:
    stage, _ = build_stage(make_config(activation=activation), 0, 2)
    sent = stage.forward(begin(stage)).clone()
    assert torch.equal(stage.predict(begin(stage)), sent)


def test_a_tensor_is_asked_for_by_name_and_microbatch(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an out-of-memory error can say for what."""
    stage, device = build_stage(make_config(), 0, 3)
    purposes, take = [], device.take

    def record(shape: Any, category: Any, purpose: str, dtype: Any = None) -> torch.Tensor:
        purposes.append(purpose)
        return take(shape, category, purpose, dtype)

    monkeypatch.setattr(device, "take", record)
    frame = Frame(microbatch=7, rows=ROWS, weight=1 / ROWS, is_first=True, feed=feed)
    stage.predict(frame)
    assert purposes == [f"{name} of microbatch 7" for name in ("x", "z0", "z1", "z2", "z3")]
