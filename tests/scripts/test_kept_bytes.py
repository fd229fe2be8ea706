"""One tensor per layer between forward and backward, measured beside what autograd saves; n layers are equal here."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch.profiler import profile

from partition.graph import ACTIVATION_RECORDS, LOSS_RECORDS, build_network
from partition.graph.chain import Chain
from partition.graph.program import build_module_program
from partition.runtime import build_module
from partition.runtime.stage import Frame
from scripts.benchmarks.kept_bytes import (
    BLOCKS,
    DEPTHS,
    ROWS,
    WIDTH,
    Kept,
    block_model,
    build_stage,
    kept,
    kept_with_loss,
    measure_all,
    plain_model,
)
from scripts.benchmarks.replay import RESULTS

ONE_TENSOR_BYTES = ROWS * WIDTH * 4
PHI_OF_Z_AGAIN = ["gelu", "gelu_tanh", "silu"]
"""Activations of which autograd is known to save both z and h."""


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("activation", ACTIVATION_RECORDS)
def test_a_stage_keeps_its_input_and_one_tensor_per_hidden_layer(activation: str, depth: int) -> None:
    found = kept(plain_model(activation, depth))
    assert found.stage_bytes == (depth + 1) * ONE_TENSOR_BYTES
    assert found.stage_bytes <= found.autograd_bytes


@pytest.mark.parametrize("depth", [1, 2, 5, 12])
@pytest.mark.parametrize("activation", PHI_OF_Z_AGAIN)
def test_gelu_and_silu_keep_the_share_that_was_derived(activation: str, depth: int) -> None:
    found = kept(plain_model(activation, depth))
    assert Fraction(found.stage_bytes, found.autograd_bytes) == Fraction(depth + 1, 2 * depth + 1)


@pytest.mark.parametrize("measure", [kept, kept_with_loss])
@pytest.mark.parametrize("activation", PHI_OF_Z_AGAIN)
def test_gelu_and_silu_keep_half_of_autograd_per_hidden_layer(activation: str, measure: Callable[[Any], Kept]) -> None:
    fewer, more = (measure(plain_model(activation, depth)) for depth in (3, 4))
    assert more.stage_bytes - fewer.stage_bytes == ONE_TENSOR_BYTES
    assert more.autograd_bytes - fewer.autograd_bytes == 2 * ONE_TENSOR_BYTES


@pytest.mark.parametrize("measure", [kept, kept_with_loss])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_never_keeps_more_than_autograd(block: str, depth: int, measure: Callable[[Any], Kept]) -> None:
    found = measure(block_model(block, depth))
    assert found.stage_bytes <= found.autograd_bytes


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("loss", LOSS_RECORDS)
def test_a_loss_never_keeps_more_than_autograd(loss: str, activation: str) -> None:
    found = kept_with_loss(plain_model(activation, 2, loss=loss))
    assert found.stage_bytes <= found.autograd_bytes


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("options", [{"label_smoothing": 0.1}, {"class_weights": tuple(range(1, 11))}], ids=str)
def test_a_weighted_loss_never_keeps_more_than_autograd(options: dict[str, Any], activation: str) -> None:
    found = kept_with_loss(plain_model(activation, 2, **options))
    assert found.stage_bytes <= found.autograd_bytes


def test_six_layers_of_1024_on_784_features_keep_53_percent() -> None:
    model = plain_model("gelu", 6, in_features=784, hidden_features=(1024,) * 6)
    found = kept(model)
    assert Fraction(found.stage_bytes, found.autograd_bytes) == Fraction(784 + 6 * 1024, 784 + 12 * 1024)
    assert f"{found.share:.2f}" == "0.53"


# Whether the two countings can be trusted: the allocator knows of neither frames nor saved tensors.


def allocated_bytes(function: Callable[[], object]) -> int:
    """Bytes that are still allocated when the function has returned, what it returns included."""
    with profile(profile_memory=True) as session:
        result = function()
    events = [event for event in session.profiler.kineto_results.events() if event.name() == "[memory]"]
    del result
    return sum(event.nbytes() for event in events)


@pytest.mark.parametrize("activation", ACTIVATION_RECORDS)
def test_the_allocator_counts_the_same_bytes(activation: str) -> None:
    model = plain_model(activation, 3)
    network, found = build_network(model), kept(model)
    stage, plain = build_stage(network, build_module_program(network)), build_module(model).to_torch()

    def of_stage() -> Frame:
        frame = Frame(microbatch=0, rows=ROWS, weight=1.0, is_first=True)
        stage.receive(stage.program.input, frame)
        stage.forward(frame)
        stage.give_back(stage.program.output, frame)
        return frame

    logits_bytes = ROWS * model.out_features * 4
    assert allocated_bytes(of_stage) == found.stage_bytes
    assert allocated_bytes(lambda: plain(torch.empty(ROWS, WIDTH))) == found.autograd_bytes + logits_bytes


def test_a_stage_that_keeps_every_value_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this the tests above might not be able to fail."""
    monkeypatch.setattr(Chain, "keeps", lambda chain, _: chain.is_training)
    found = kept(plain_model("gelu", 3))
    assert found.stage_bytes == found.autograd_bytes == 7 * ONE_TENSOR_BYTES


# The file


def recorded_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((RESULTS / "kept_bytes.json").read_text())["rows"]
    return rows


def test_the_file_has_every_activation_and_block_at_every_depth() -> None:
    """Where this fails: python -m scripts.benchmarks.kept_bytes."""
    expected = [(name, depth) for name in (*ACTIVATION_RECORDS, *BLOCKS) for depth in DEPTHS]
    assert [(row["network"], row["depth"]) for row in recorded_rows()] == expected


@pytest.mark.slow
def test_the_file_is_what_is_measured() -> None:
    assert recorded_rows() == measure_all()
