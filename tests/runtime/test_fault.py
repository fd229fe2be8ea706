"""A value that is not finite: every rank stops on the same step and names the layer where it began."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.errors import RunError
from partition.plan import Search
from partition.plan.shape import Shape, segments_of
from partition.record import Metrics
from partition.runtime import joined, train, training
from partition.runtime.parameters import Parameters
from tests.runtime.by_hand import find
from tests.runtime.conftest import build_config
from tests.runtime.ranks import run_ranks

PLANNER = {"num_microbatches": (4,), "num_stages": (2, 4)}


def tampering(tamper: Callable[[int, Parameters], None]) -> Any:
    """Training whose layers are changed before the first step, each where it lives."""
    build = training.build

    def tampered(*arguments: Any) -> Any:
        fleet = build(*arguments)
        for worker in fleet.workers:  # type: ignore[union-attr]
            for stage in worker.stages.values():
                for layer, of in stage.layers.items():
                    with torch.no_grad():
                        tamper(layer, of)
        return fleet

    return patch.object(training, "build", tampered)


def overflow_forward(layer: int, of: Parameters) -> None:
    """Layer 2 makes sums of what float32 does not hold; relu and what follows turn that into no numbers."""
    if layer == 2:
        of.weight_OI.mul_(1e38)


def overflow_backward(layer: int, of: Parameters) -> None:
    """All outputs are 0, so the loss is finite; the gradient grows by 1e20 or so a layer on its way."""
    of.weight_OI.mul_(1e21 if layer else 0.0)
    assert of.bias_O is not None
    of.bias_O.zero_()


FAULTS = {"forward": overflow_forward, "backward": overflow_backward}


def message(config: ExperimentConfig, name: str, fault: str) -> tuple[str, int]:
    """What a process says as the run ends, and how many steps it has seen."""
    search, metrics, dataset = Search(config), list[Metrics](), load(config)
    candidate = find(search, name)
    with tampering(FAULTS[fault]), joined(search, candidate, dataset.num_train) as world:
        with pytest.raises(RunError) as caught:
            train(search, candidate, dataset, metrics.append, world=world)
        assert caught.value.exit_code == 4
        return str(caught.value), len(metrics)


NAMES = ("whole", "accumulate-4", "data_parallel-2x4", "pipeline-2x4-1f1b", "pipeline-4x4-zb_h1", "pipeline-2x4-zbv",
         "hybrid-2x2x4-gpipe")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("activation", ["relu"])
def test_the_layer_whose_output_overflows_is_named(name: str, activation: str) -> None:
    config = build_config(activation=activation, planner=PLANNER, loss="mse")
    said, steps = message(config, name, "forward")
    assert steps == 0
    assert said.startswith("step 1: ")
    assert "the output of layer 2" in said
    assert ("layer 2 (stage " in said) is name.startswith(("pipeline", "hybrid"))
    assert said.endswith(
        " was the first that is not finite; the learning rate is 0.1, try a tenth of it (optimizer.lr)"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_the_layer_whose_gradient_overflows_is_named(name: str, max_grad_norm: float | None) -> None:
    """Four layers: the gradient of the logits is below 1, of layer 2 1e19; layer 1 would have 1e40."""
    optimizer = {"name": "sgd", "lr": 0.1, **({"max_grad_norm": max_grad_norm} if max_grad_norm else {})}
    config = build_config(activation="tanh", planner=PLANNER, optimizer=optimizer, l2_penalty=0.0)
    said, steps = message(config, name, "backward")
    assert steps == 0
    assert said.startswith("step 1: grad_norm is ")
    assert "all outputs are finite, and the gradient of layer 1" in said


def no_number(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss of the user's that goes wrong."""
    return (outputs - targets).square().mean() * torch.nan


def test_a_loss_of_the_users_may_be_what_is_wrong() -> None:
    config = build_config(planner=PLANNER, loss="tests.runtime.test_fault:no_number")
    search, dataset = Search(config), load(config)
    with pytest.raises(RunError) as caught:
        train(search, find(search, "whole"), dataset, lambda _: None)
    assert str(caught.value).endswith(" (optimizer.lr), or correct tests.runtime.test_fault:no_number (model.loss)")


def message_in_process(changes: dict[str, Any], name: str, fault: str) -> tuple[str, int]:
    """Run by every rank."""
    return message(build_config(**changes), name, fault)


@pytest.mark.parametrize(
    ("name", "fault", "expected"),
    [
        ("pipeline-2x4-1f1b", "forward", "the output of layer 2 (stage 1 on simulated:1)"),
        ("pipeline-2x4-zb_h1", "backward", "the gradient of layer 1 (stage 1 on simulated:1)"),
        ("data_parallel-2x4", "backward", "the gradient of layer 1 was"),
    ],
)
def test_every_process_stops_on_the_same_step_and_says_the_same(name: str, fault: str, expected: str) -> None:
    activation, loss = ("relu", "mse") if fault == "forward" else ("tanh", "cross_entropy")
    changes = {"activation": activation, "planner": PLANNER, "loss": loss}
    said = run_ranks(2, message_in_process, {**changes, "l2_penalty": 0.0}, name, fault)
    assert len(set(said)) == 1
    text, steps = said[0]
    assert steps == 0
    assert expected in text


def test_without_recomputed_layers_or_with_them_the_same_is_said() -> None:
    config = build_config(activation="relu", planner={"num_microbatches": (4,)}, loss="mse")
    search, dataset = Search(config), load(config)
    plain = find(search, "accumulate-4")
    again = search.price(Shape.of(plain), [segment.recomputing_all() for segment in segments_of(plain.stages)])
    with tampering(overflow_forward), pytest.raises(RunError, match="the output of layer 2 was the first"):
        train(search, again, dataset, lambda _: None)


def test_the_first_layer_that_a_rate_far_too_large_breaks_is_that_of_a_forward_by_torch() -> None:
    """After the last good step the parameters are those of a run that ends there; torch runs their layers."""
    changes = {"optimizer": {"name": "sgd", "lr": 1e30}, "activation": "relu", "loss": "mse", "l2_penalty": 0.0}
    search, metrics = Search(build_config(**changes, steps=50)), list[Metrics]()
    dataset = load(search.config)
    with pytest.raises(RunError) as caught:
        train(search, find(search, "whole"), dataset, metrics.append)
    good = len(metrics)
    assert good > 0
    shorter = Search(build_config(**changes, steps=good))
    fleet = train(shorter, find(shorter, "whole"), dataset, lambda _: None).fleet
    h, broken = torch.from_numpy(dataset.train_x), []
    for layer, (weight, bias) in enumerate(zip(*[iter(fleet.parameters())] * 2, strict=True)):
        h = torch.nn.functional.linear(h, weight.detach(), bias.detach())
        broken += [] if bool(torch.isfinite(h).all()) else [layer]
        h = torch.relu(h)
    assert f"the output of layer {broken[0]} was the first" in str(caught.value)


def test_inputs_that_are_not_finite_are_said_to_be() -> None:
    config = build_config()
    search, dataset = Search(config), load(config)
    dataset.train_x[:] = float("nan")
    with pytest.raises(
        RunError, match=r"^step 1: loss is nan: the inputs of the minibatch are not all finite; remove or correct"
    ):
        train(search, find(search, "whole"), dataset, lambda _: None)


BLOCKS: tuple[dict[str, Any], ...] = (
    {"linear": 9, "activation": "relu"},
    {"residual": {"norm": "layer_norm", "hidden": 8, "activation": "relu"}},
    {"residual": {"norm": "rms_norm", "swiglu": 6}},
    {"norm": "layer_norm"},
)


def overflow_within_a_block(layer: int, of: Parameters) -> None:
    """Layer 5 is the gate of block 2, whose weighted parts are 4 (a norm) to 7."""
    if layer == 5:
        of.weight_OI.fill_(3e38)


def overflow_at_the_end(layer: int, of: Parameters) -> None:
    """The logits alone: block 4 is one layer, and so is block 3."""
    if layer == 9:
        of.weight_OI.fill_(3e38)


@pytest.mark.parametrize(
    ("tamper", "name", "expected"),
    [
        (overflow_within_a_block, "accumulate-4", "the output of block 2 (layers 4 to 7) was the first"),
        (overflow_within_a_block, "pipeline-4x4-1f1b", "the output of block 2 (layers 4 to 7; stage 2 on simulated:2)"),
        (overflow_at_the_end, "whole", "the output of block 4 (layer 9) was the first"),
    ],
)
def test_a_block_is_named_with_its_layers(tamper: Callable[[int, Parameters], None], name: str, expected: str) -> None:
    config = build_config(blocks=BLOCKS, planner=PLANNER)
    search, dataset = Search(config), load(config)
    with tampering(tamper), pytest.raises(RunError) as caught:
        train(search, find(search, name), dataset, lambda _: None)
    assert expected in str(caught.value)
