"""A plan's PyTorch lines, executed: after one step the parameters are those of the plain way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from partition.config import ExperimentConfig
from partition.errors import PartitionError
from partition.plan import Candidate, Search, compare
from partition.report.pytorch import pytorch_lines
from tests.report.torch_lines import execute, execute_on_rank, reference
from tests.runtime.ranks import run_ranks


def build_config(**changes: Any) -> ExperimentConfig:
    device = {"kind": "simulated", "memory_bytes": 2**20}
    sections: dict[str, Any] = {
        "name": "small",
        "model": {"in_features": 12, "hidden_features": (10, 9, 8), "out_features": 5, "activation": "gelu"},
        "data": {"source": "synthetic"},
        "training": {"minibatch_size": 16},
        "optimizer": {"lr": 0.1},
        "cluster": {"devices": (device,) * 4},
    }
    for section, keys in changes.items():
        sections[section] = {**sections[section], **keys}
    return ExperimentConfig.model_validate(sections)


BLOCKS = (
    {"linear": 8, "activation": "relu"},
    {"residual": {"norm": "layer_norm", "hidden": 6, "activation": "gelu"}, "repeat": 2},
    {"norm": "rms_norm"},
)
CONFIGS = {
    "plain": build_config(),
    "penalty": build_config(model={"l2_penalty": 0.1, "loss": "mse"}),
    "limit": build_config(optimizer={"max_grad_norm": 0.05}, model={"l2_penalty": 0.01}),
    "blocks": build_config(
        model={"hidden_features": (), "blocks": BLOCKS, "l2_penalty": 0.01}, optimizer={"max_grad_norm": 0.05}
    ),
    "identity": build_config(model={"activation": "identity"}),
}


def candidate(config: ExperimentConfig, name: str) -> Candidate:
    found = compare(config).candidate(name)
    assert found is not None, name
    return found


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", ["whole", "accumulate-4", "shrink-8"])
def test_on_one_device(config: ExperimentConfig, name: str) -> None:
    chosen = candidate(config, name)
    found = execute(config, pytorch_lines(config, chosen), chosen.minibatch_size)
    expected = reference(config, chosen.minibatch_size, chosen.learning_rate)
    for here, there in zip(found, expected, strict=True):
        assert here == pytest.approx(there, abs=1e-6)


def test_a_plan_that_recomputes() -> None:
    """As the planner chooses the layers, on a device that is too small for the microbatch otherwise."""
    config = CONFIGS["plain"]
    search = Search(config)
    whole = search.whole()
    assert whole.predicted is not None
    devices = tuple(
        device.model_copy(update={"memory_bytes": whole.predicted.peak_bytes[0] - 8})
        for device in config.cluster.devices[:1]
    )
    small = config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": devices})})
    chosen = candidate(small, "recompute-1")
    assert chosen.feasible
    assert chosen.recompute
    for here, there in zip(execute(small, pytorch_lines(small, chosen), 16), reference(small, 16, 0.1), strict=True):
        assert here == pytest.approx(there, abs=1e-6)


def test_uneven_portions() -> None:
    config = build_config(training={"minibatch_size": 13})
    chosen = candidate(config, "accumulate-4")
    found = execute(config, pytorch_lines(config, chosen), 13)
    for here, there in zip(found, reference(config, 13, 0.1), strict=True):
        assert here == pytest.approx(there, abs=1e-6)


@pytest.mark.parametrize("name", ["plain", "identity", "blocks"])
@pytest.mark.parametrize("spans", [((0, 1),), ((1, 2),), ((0, 0), (2, 3)), ((0, 3),)])
def test_layers_computed_again(name: str, spans: tuple[tuple[int, int], ...]) -> None:
    config = CONFIGS[name]
    chosen = candidate(config, "accumulate-2")
    lines = pytorch_lines(config, replace(chosen, recompute=spans))
    assert lines.count("checkpoint(model[") == len(spans)
    for here, there in zip(execute(config, lines, 16), reference(config, 16, 0.1), strict=True):
        assert here == pytest.approx(there, abs=1e-6)


def check_ranks(config: ExperimentConfig, name: str) -> None:
    """Every parameter is updated somewhere, and everywhere to the same values."""
    chosen = candidate(config, name)
    expected = reference(config, 16, chosen.learning_rate)
    seen = set()
    for found in run_ranks(chosen.num_devices, execute_on_rank, config, pytorch_lines(config, chosen)):
        seen |= set(found)
        for place, values in found.items():
            assert values == pytest.approx(expected[place], abs=1e-6)
    assert seen == set(range(len(expected)))


@pytest.mark.parametrize("name", ["data_parallel-2x2", "pipeline-2x4-1f1b"])
def test_on_two_devices(name: str) -> None:
    config = CONFIGS["limit"]
    narrow = {"num_microbatches": (int(name.split("x")[1][0]),)}
    check_ranks(config.model_copy(update={"planner": config.planner.model_copy(update=narrow)}), name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "data_parallel-4x2",
        "sharded-2",
        "sharded-4",
        "pipeline-4x4-gpipe",
        "pipeline-2x4-interleaved_1f1b",
        "pipeline-2x4-zb_h1",
        "pipeline-2x4-zb_h2",
        "pipeline-2x4-zbv",
        "hybrid-2x2x4-1f1b",
        "hybrid-2x2x4-zbv",
    ],
)
@pytest.mark.parametrize("config", ["penalty", "limit", "blocks"])
def test_on_several_devices(config: str, name: str) -> None:
    of = CONFIGS[config]
    counts = {"num_microbatches": (2 if name.startswith("data") else 4,)}
    check_ranks(of.model_copy(update={"planner": of.planner.model_copy(update=counts)}), name)


def test_learning_rate_and_its_rule_are_said() -> None:
    config = CONFIGS["plain"]
    assert pytorch_lines(config, candidate(config, "shrink-8")).startswith(
        "# shrink-8: 8 examples a step, learning rate 0.05 (linear in the minibatch)\n"
    )


def test_what_torch_cannot_do_is_said() -> None:
    config = build_config(training={"minibatch_size": 22})
    config = config.model_copy(update={"planner": config.planner.model_copy(update={"num_microbatches": (4,)})})
    lines = pytorch_lines(config, candidate(config, "pipeline-2x4-zb_h2"))
    assert "# torch has no zb_h2: 1F1B takes its place\n" in lines
    assert "# torch needs equal microbatches: take a minibatch of 24, a multiple of 4\n" in lines


def test_what_has_no_layout_has_no_lines() -> None:
    config = build_config()
    planner = config.planner.model_copy(update={"strategies": ("pipeline",), "num_stages": (9,)})
    (refused, *_) = Search(config.model_copy(update={"planner": planner})).candidates()
    with pytest.raises(PartitionError, match="cannot be laid out: 9 stages, but the network has 4 layers"):
        pytorch_lines(config, refused)
