"""The footprint as text: every figure of the record is there, and the words say what dominates and what would help."""

from __future__ import annotations

import json
from typing import Any

import pytest

from partition.config import ExperimentConfig
from partition.plan import Search, compare_with
from partition.plan.curve import memory_curve
from partition.plan.footprint import Footprint, footprint
from partition.plan.largest import largest_fitting
from partition.report.largest import largest_text
from partition.report.memory import curve_text, footprint_text, memory_record
from partition.report.memory_words import memory_words
from partition.units import format_bytes
from tests.plan.conftest import build_config, with_memory


def found_of(name: str, config: ExperimentConfig | None = None, **sections: Any) -> Footprint:
    search = Search(config or build_config(planner={"num_microbatches": (4,)}, **sections))
    return footprint(search, next(one for one in search.candidates() if one.name == name))


def test_layers_devices_and_peaks_are_tables_of_the_figures() -> None:
    found = found_of("pipeline-3x4-1f1b")
    text = footprint_text(found, "small")
    assert text.startswith("small: memory of pipeline-3x4-1f1b, the minibatch of 22 in 4 microbatches of at most 6")
    lines = text.splitlines()
    for of in found.layers:
        (line,) = [line for line in lines if line.startswith(f"{of.layer}  ") and "->" in line]
        assert line.split("  ", 1)[1].split() == [
            str(of.in_features), "->", str(of.out_features), str(of.stage_index),
            *format_bytes(of.parameters_bytes).split(), *format_bytes(of.gradients_bytes).split(),
            *format_bytes(of.kept_bytes).split(), *(format_bytes(of.sent_bytes).split() if of.sent_bytes else []),
        ]  # fmt: skip
    for of_device in found.devices:
        (parts, peaks) = [line for line in lines if line.startswith(of_device.device)]
        assert parts.endswith(format_bytes(of_device.training.peak_bytes))
        assert of_device.prediction is not None
        assert peaks.endswith(format_bytes(of_device.prediction.peak_bytes))
        assert f"{of_device.peak_action}, " in peaks
    assert max(map(len, lines)) <= 120


def test_layers_and_devices_that_are_alike_share_a_line() -> None:
    sections = {"model": {"hidden_features": (9, 9, 9, 9)}}
    text = footprint_text(found_of("whole", **sections), "small")
    assert "\n1-3, each  9 -> 9" in text
    training = {"training": {"minibatch_size": 24, "steps": 4}}
    assert "\nsimulated:0-3  0-3" in footprint_text(found_of("data_parallel-4x4", **training), "small")
    assert "\nsimulated:0,2  " in footprint_text(found_of("hybrid-2x2x4-1f1b", **training), "small")


def test_state_is_told_to_dominate_where_it_does() -> None:
    words = memory_words(found_of("whole", training={"minibatch_size": 1, "steps": 4}))
    assert "Parameters and gradients are 92% of that, activations of the one microbatch in flight are" in words
    assert "do not shrink with the minibatch" in words
    assert "keeps less" not in words
    momentum = memory_words(found_of("whole", training={"minibatch_size": 1, "steps": 4}, optimizer={"momentum": 0.9}))
    assert "Parameters, gradients and optimizer state are 95% of that" in momentum
    assert "an optimizer that keeps less" in momentum


def test_activations_are_told_to_dominate_where_they_do() -> None:
    large = {"training": {"minibatch_size": 400, "steps": 4}}
    found = found_of("pipeline-3x4-gpipe", **large)
    words = memory_words(found)
    share = found.fullest.training.activations_bytes / found.fullest.training.peak_bytes
    assert f", activations kept for 4 microbatches in flight are {share:.0%}, " in words
    assert words.index("Examples are ") < words.index("activations kept")
    assert "schedule 1f1b would bring it to" in words
    assert "Activations of the one microbatch in flight" in memory_words(found_of("whole", **large))


def test_what_does_not_fit_is_told_what_would() -> None:
    config = build_config(training={"minibatch_size": 400, "steps": 4}, planner={"num_microbatches": (4,)})
    words = memory_words(found_of("whole", with_memory(config, 30_000, 30_000, 30_000)))
    assert words.startswith("It does not fit: simulated:0 would hold ")
    assert ", which fits and recomputation would bring it to " in words
    tight = memory_words(found_of("whole", with_memory(config, 2000)))
    assert "Parameters and gradients alone, " in tight
    assert "so no minibatch is small enough" in tight


def test_a_sharded_candidate_is_told_as_an_estimate() -> None:
    text = footprint_text(found_of("sharded-4"), "small")
    assert "Devices, when each holds most (estimated)" in text
    assert "Prediction alone" not in text


def test_the_largest_are_a_line_each_and_schedules_side_by_side() -> None:
    search = Search(with_memory(build_config(), *(8000,) * 4))
    fits = largest_fitting(search, (4,))
    text = largest_text(fits)
    lines = text.splitlines()
    for fit in fits:
        if fit.num_ranks == 1:
            (line,) = [line for line in lines if line.startswith(f"{fit.name} ")]
            assert f"{fit.minibatch_size:,}" in line.split()
    best = max(fit.minibatch_size for fit in fits if fit.strategy == "pipeline" and fit.num_ranks == 3)
    assert any(line.startswith("pipeline-3x4-") and f"{best:,}" in line.split() for line in lines)
    of_three = {fit.schedule: f"{fit.minibatch_size:,}" for fit in fits
                if fit.strategy == "pipeline" and fit.num_ranks == 3 and not fit.is_recomputing}  # fmt: skip
    (row,) = [line for line in lines if line.startswith("3 devices  ")]
    assert row.split()[2:] == list(of_three.values())
    assert max(map(len, lines)) <= 120


def test_none_and_no_end_are_explained() -> None:
    none = largest_text(largest_fitting(Search(with_memory(build_config(), 1000)), (2,)))
    assert "none: not even one example a microbatch" in none
    assert "no larger one" not in none
    endless = largest_text(largest_fitting(Search(with_memory(build_config(), 2**62)), (2,)))
    assert "no larger one: the most that an experiment may ask for" in endless
    assert "none: " not in endless
    assert "leaves no way" in largest_text([])


def test_curves_are_tables_with_the_plan_and_the_limit_marked() -> None:
    search = Search(build_config())
    peak = search.whole().stages[0].memory.peak_bytes
    tight = Search(with_memory(build_config(), peak))
    text = curve_text(memory_curve(tight, tight.whole()))
    (planned, _) = [line for line in text.splitlines() if line.endswith("<- as planned")]
    assert planned.split()[:3] == ["22", "22", "1"]
    assert "100.0%" in planned
    assert [line.split()[0] for line in text.splitlines() if line.endswith("does not fit")] == ["26", "31", "37", "44"]


def test_the_record_is_plain_and_whole() -> None:
    search = Search(build_config(planner={"num_microbatches": (4,)}))
    chosen = compare_with(search).chosen
    assert chosen is not None
    found, fits = footprint(search, chosen), largest_fitting(search, (4,))
    record = json.loads(json.dumps(memory_record(found, fits, memory_curve(search, chosen))))
    assert record["candidate"] == chosen.name
    assert record["words"] == memory_words(found)
    assert [one["name"] for one in record["largest"]] == [fit.name for fit in fits]
    for one, of in zip(record["devices"], found.devices, strict=True):
        assert one["training"]["peak_bytes"] == of.training.peak_bytes
        assert one["peak_action"] == str(of.peak_action)
        assert one["prediction"]["peak_bytes"] < one["prediction"]["peak_beside_training_bytes"]
    assert "curve" not in memory_record(found, fits, None)
    assert record["curve"]["by_minibatch"]


@pytest.mark.parametrize("name", ["whole", "pipeline-2x4-zbv", "hybrid-2x2x4-gpipe", "sharded-2"])
def test_lines_are_not_longer_than_a_terminal(name: str) -> None:
    assert max(map(len, footprint_text(found_of(name), "small").splitlines())) <= 120
