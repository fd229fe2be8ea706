"""What constraints cost, in words, and how they show in a comparison, a certificate and a plan file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from partition.config import ExperimentConfig
from partition.errors import PartitionError
from partition.plan import Search, compare
from partition.plan.named import candidate_named
from partition.plan.plan_file import plan_record, read_plan
from partition.plan.verification import verify_plan

from .conftest import build_config, with_memory

FIRST_ON_TWO: dict[str, Any] = {"pinned": ({"layers": (0, 0), "device": 2},)}
PIPELINES: dict[str, Any] = {"strategies": ("pipeline",), "schedules": ("1f1b", "zbv"), "num_microbatches": (4,)}
TOGETHER: dict[str, Any] = {"keep_together": ((0, 2),)}


def tight(**planner: Any) -> ExperimentConfig:
    """A network of which only parts fit a device."""
    return with_memory(build_config(planner={**planner, "schedules": ("1f1b", "zbv")}), 2_800, 2_800, 2_800, 2_800)


def test_the_choice_honours_them_and_says_so() -> None:
    """In the verdict, in the certificate, and where the first layer lies."""
    comparison = compare(build_config(planner={**FIRST_ON_TWO, **PIPELINES}))
    assert comparison.chosen is not None
    assert comparison.certificate is not None
    assert comparison.chosen.stages[0].device == "simulated:2"
    assert "All of this is with layer 0 pinned to simulated:2, which costs nothing" in comparison.verdict
    words = (
        "of splits with layer 0 pinned to simulated:2; order of devices: the one order of devices that the pins allow"
    )
    assert words in comparison.certificate.method


def test_what_they_cost_is_a_factor() -> None:
    """Three of four equal layers in one stage are no even split."""
    model = {"in_features": 60, "hidden_features": (60, 60, 60), "out_features": 60}
    free, held = (compare(build_config(model=model, planner={**PIPELINES, "schedules": ("1f1b",), **more}))
                  for more in ({}, TOGETHER))  # fmt: skip
    assert free.chosen is not None
    assert held.chosen is not None
    assert free.chosen.predicted is not None
    assert held.chosen.predicted is not None
    times = held.chosen.predicted.step_s / free.chosen.predicted.step_s
    assert times > 1.01
    assert f"which costs a factor of {times:.3g}: without that the choice would be {free.chosen.name}" in held.verdict


def test_where_they_leave_nothing_that_is_the_reason() -> None:
    """Parts fit, the layers together do not: which, and the least memory that would hold them."""
    free, held = compare(tight()), compare(tight(**TOGETHER))
    assert free.chosen is not None
    assert held.chosen is None
    assert "layers 0-2 kept together, which is why nothing can be chosen" in held.verdict
    pipelines = [one for one in held.candidates if one.name == "pipeline-2x2-1f1b"]
    assert "layers 0-2, kept in one stage, need " in pipelines[0].reason
    assert "the largest device, simulated:0, has 2.7 KiB" in pipelines[0].reason


@pytest.mark.parametrize("name", ["data_parallel-2x1", "hybrid-2x2x2-1f1b", "sharded-2"])
def test_where_every_device_holds_all_layers_a_pin_is_the_reason(name: str) -> None:
    """Those are rejected in words, among the rest and by name."""
    search = Search(build_config(planner=FIRST_ON_TWO))
    named = candidate_named(search, name)
    assert named is not None
    assert not named.feasible
    assert named.reason.endswith(" every layer, with layer 0 pinned to simulated:2" if name == "sharded-2"
                                 else " all layers, with layer 0 pinned to simulated:2")  # fmt: skip
    assert any(one.reason == named.reason for one in search.candidates() if one.strategy == named.strategy)


def test_one_device_is_the_pinned_one() -> None:
    """The only one; of two there is none."""
    whole = candidate_named(Search(build_config(planner=FIRST_ON_TWO)), "whole")
    assert whole is not None
    assert [stage.device for stage in whole.stages] == ["simulated:2"]
    two = (*FIRST_ON_TWO["pinned"], {"layers": (3, 3), "device": 0})
    whole = candidate_named(Search(build_config(planner={"pinned": two})), "whole")
    assert whole is not None
    assert whole.reason == (
        "would have all layers on simulated:2, with layer 0 pinned to simulated:2 and layer 3 pinned to simulated:0"
    )


@pytest.mark.parametrize(
    ("planner", "reason"),
    [
        (TOGETHER, "3 stages, but layers kept together leave 2 parts; take num_stages <= 2"),
        (
            {"pinned": tuple({"layers": (at, at), "device": at} for at in range(4))},
            "layers are pinned to 4 devices, 3 take part; take num_stages >= 4",
        ),
        (
            {"pinned": tuple({"layers": (at, at), "device": on} for at, on in enumerate((0, 1, 0)))},
            "no order of 3 devices has a split into 3 stages with layer 0 pinned to simulated:0, layer 1 pinned to "
            "simulated:1 and layer 2 pinned to simulated:0",
        ),
    ],
)
def test_a_pipeline_without_a_split_says_why(planner: dict[str, Any], reason: str) -> None:
    """Too many stages, too few devices, an order that no device returns in."""
    named = candidate_named(Search(build_config(planner=planner)), "pipeline-3x4-1f1b")
    assert named is not None
    assert named.reason == reason


def test_a_plan_that_breaks_them_is_refused(tmp_path: Path) -> None:
    """It was made without; the split is the file's, the constraints are the experiment's."""
    config, path = build_config(planner={"strategies": ("pipeline",)}), tmp_path / "plan.json"
    chosen = compare(config).chosen
    assert chosen is not None
    path.write_text(json.dumps(plan_record(config, chosen, "")))
    assert read_plan(path, Search(config)) == chosen
    for planner, words in (
        (TOGETHER, "layers 0-2 are to be kept together, and layer"),
        (FIRST_ON_TWO, "layer 0 is to be on simulated:2 alone, and simulated:0 holds layer 0"),
    ):
        with pytest.raises(PartitionError, match=rf"breaks planner\.keep_together or planner\.pinned: {words}"):
            read_plan(path, Search(build_config(planner=planner)))


@pytest.mark.parametrize("planner", [TOGETHER, FIRST_ON_TWO, {**TOGETHER, **FIRST_ON_TWO}])
def test_a_plan_under_them_passes_every_check(planner: dict[str, Any], tmp_path: Path) -> None:
    """The split is searched again with them, by other means."""
    config, path = build_config(planner={**planner, **PIPELINES}), tmp_path / "plan.json"
    comparison = compare(config)
    assert comparison.chosen is not None
    record = plan_record(config, comparison.chosen, comparison.verdict, comparison.certificate)
    path.write_text(json.dumps(record))
    checks = {check.what: check for check in verify_plan(path, Search(config))[1]}
    assert {"pins", "split", "choice"} <= checks.keys()
    assert all(check.passed for check in checks.values()), checks
    assert "layers 0-2 kept together" in checks["pins"].found or planner is FIRST_ON_TWO
