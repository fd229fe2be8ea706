"""Blocks of a model: every mistake with its place and what to write instead, and the way back to a file."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from partition.config import ModelConfig, resolve
from tests.config.conftest import Load, Problems

LINE = "  hidden_features: [8, 8]\n"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{linear: 8, residual: {hidden: 4}}", "blocks.0.residual: and linear are both given; make two blocks of them"),
        (
            "{residual: {norm: layernorm, hidden: 4}}",
            "blocks.0.residual.norm: 'layernorm' is not available; choose layer_norm or rms_norm",
        ),
        ("{residual: {hidden: 4, swiglu: 2}}", "blocks.0.residual.swiglu: and hidden are both given; keep one of them"),
        (
            "{residual: {hidden: 4}, dropout: 0.1}",
            "blocks.0.dropout: belongs inside: residual: {dropout: ...}; move it there",
        ),
        (
            "{residual: {norm: rms_norm}}",
            "blocks.0.residual.hidden: is missing; add it, for example `hidden: 2048`, or `swiglu: 1024`",
        ),
        ("{linear: 8, dropuot: 0.1}", "blocks.0.dropuot: unknown key; did you mean 'dropout'?"),
        ("{linear: 8, repeat: 0}", "blocks.0.repeat: 0 is too small; the least is 1"),
        ("{linear: 8, dropout: 1.5}", "blocks.0.dropout: 1.5 is too large; the most is 0.99"),
        (
            "{repeat: 2}",
            "blocks.0.linear: is missing; a block has linear, residual or norm, for example `linear: 512`",
        ),
        (
            "{residual: {swiglu: 4, activation: gelu}}",
            "blocks.0.residual.activation: is for hidden, swiglu has one of its own; remove it",
        ),
    ],
)
def test_a_wrong_block_is_named_with_its_remedy(right: str, problems: Problems, block: str, message: str) -> None:
    assert problems(right.replace(LINE, f"  blocks:\n    - {block}\n")) == [f"4: model.{message}"]


def test_blocks_and_hidden_features_exclude_each_other(right: str, problems: Problems) -> None:
    found = problems(right.replace(LINE, f"{LINE}  blocks: [{{linear: 8}}]\n"))
    assert found == ["3: model.hidden_features: and blocks are both given; write the layers as blocks, or remove those"]


def test_blocks_read_again_are_equal(right: str, load: Load) -> None:
    blocks = "[{linear: 8, norm: layer_norm, dropout: 0.5}, {residual: {norm: rms_norm, swiglu: 4}, repeat: 3}]"
    config = load(right.replace(LINE, f"  blocks: {blocks}\n"))
    assert resolve(config)["model"]["blocks"] == [
        {"linear": 8, "norm": "layer_norm", "dropout": 0.5},
        {"residual": {"norm": "rms_norm", "swiglu": 4}, "repeat": 3},
    ]
    assert "hidden_features" not in resolve(config)["model"]
    assert config.model.features == (4, 8, 4, 8, 4, 8, 4, 8, 2)


def model(**changes: Any) -> ModelConfig:
    return ModelConfig.model_validate({"in_features": 4, "out_features": 2, "hidden_features": (), **changes})


def test_a_loss_by_import_path_says_what_its_targets_are() -> None:
    path = "package.module:function"
    assert not model(loss=path).has_class_targets
    assert model(loss=path, loss_targets="classes").has_class_targets
    assert model().has_class_targets
    with pytest.raises(ValidationError, match="cross_entropy"):
        model(loss="package.module")
    with pytest.raises(ValidationError, match=r"loss_columns: is for loss: package\.module:function"):
        model(loss_columns=3)


def test_too_many_blocks_are_refused_without_being_built() -> None:
    with pytest.raises(ValidationError, match="the limit is 100000; repeat fewer"):
        model(blocks=({"residual": {"hidden": 4}, "repeat": 100_000},) * 100)
