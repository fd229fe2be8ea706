"""What `plan` prints."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from partition.config import ExperimentConfig, ModelConfig
from partition.plan import compare, comparison_record
from partition.report import comparison_text
from partition.report.comparison import WIDTH, _blocks, best_of_each_kind


def build_config(*limits: int, **planner: Any) -> ExperimentConfig:
    rates = {"flop_per_s": {"default": 1e9}, "memory_bytes_per_s": 1e9}
    return ExperimentConfig.model_validate({
        "name": "small",
        "model": {"in_features": 12, "hidden_features": (10, 10), "out_features": 5, "activation": "gelu"},
        "data": {"source": "synthetic"},
        "training": {"minibatch_size": 22},
        "optimizer": {"lr": 0.1},
        "cluster": {"devices": tuple({"kind": "simulated", "memory_bytes": limit, **rates} for limit in limits)},
        "planner": planner,
    })  # fmt: skip


def text(*limits: int, is_complete: bool = False, **planner: Any) -> str:
    return comparison_text(compare(build_config(*limits, **planner)), is_complete=is_complete)


PLENTY = 2**20


def test_first_line_says_what_was_compared() -> None:
    first = text(PLENTY, PLENTY).splitlines()[0]
    assert first == "small: 12 -> 2 x 10 -> 5 (gelu, float32), minibatch 22, 2 devices"
    assert text(PLENTY).splitlines()[0].endswith("minibatch 22, 1 device")


def test_exactly_one_row_is_chosen() -> None:
    comparison = compare(build_config(PLENTY, PLENTY))
    assert comparison.chosen is not None
    (row,) = [line for line in comparison_text(comparison).splitlines() if line.endswith("<- chosen")]
    assert row.startswith(f"{comparison.chosen.name} ")


def test_exact_and_inexact_stand_apart() -> None:
    exact, inexact = text(PLENTY).split("Another gradient (smaller minibatch)")
    assert "shrink-" not in exact
    assert "accumulate-" not in inexact.split("Verdict")[0]


def test_complete_text_shows_every_candidate() -> None:
    comparison = compare(build_config(PLENTY, 6000))
    shown = comparison_text(comparison, is_complete=True)
    assert all(re.search(rf"^{re.escape(one.name)} ", shown, re.MULTILINE) for one in comparison.candidates)
    assert "--all" not in shown


@pytest.mark.parametrize("limits", [(PLENTY,) * 4, (7000,) * 4, (1000,) * 4, (7000, 6000, 5000, 4000)])
def test_short_text_counts_what_it_leaves_out(limits: tuple[int, ...]) -> None:
    comparison = compare(build_config(*limits))
    shown = best_of_each_kind(comparison)
    hidden = len(comparison.candidates) - len(shown)
    assert f"\n{hidden} more candidates" in comparison_text(comparison)


@pytest.mark.parametrize("limits", [(PLENTY,) * 4, (7000,) * 4, (1000,) * 4, (7000, 6000, 5000, 4000)])
def test_short_text_keeps_the_choice_and_the_best_of_every_strategy(limits: tuple[int, ...]) -> None:
    comparison = compare(build_config(*limits))
    shown = best_of_each_kind(comparison)
    assert comparison.chosen is None or comparison.chosen in shown
    for strategy in ("whole", "shrink", "accumulate", "pipeline"):
        kind = [one for one in comparison.candidates if one.strategy == strategy]
        assert next(iter(kind)) in shown


def test_choice_is_shown_though_another_of_its_kind_is_as_fast() -> None:
    """A tie went to less memory, and the table showed the other one without a mark."""
    comparison = compare(build_config(PLENTY))
    assert comparison.chosen is not None
    twin = replace(comparison.chosen, name="twin")
    tied = replace(comparison, candidates=(twin, *comparison.candidates))
    assert best_of_each_kind(tied)[:2] == (twin, comparison.chosen)


def test_of_equally_fast_ones_the_row_is_the_one_that_the_verdict_names() -> None:
    """The verdict named accumulate-64 as the best on one device, and the table showed accumulate-16."""
    comparison = compare(build_config(PLENTY, PLENTY))
    slow = next(one for one in comparison.candidates if one.strategy == "pipeline")
    assert slow is not comparison.chosen
    assert slow.predicted is not None
    leaner = replace(slow, name="leaner", predicted=replace(slow.predicted, peak_bytes=(1,)))
    place = comparison.candidates.index(slow) + 1
    tied = replace(comparison, candidates=(*comparison.candidates[:place], leaner, *comparison.candidates[place:]))
    shown = best_of_each_kind(tied)
    assert leaner in shown
    assert slow not in shown


def test_unlike_devices_that_all_refuse_do_not_fill_the_screen() -> None:
    refused = text(1000, 1100, 1200, 1300).split("Does not fit\n")[1].split("\n\n")[0]
    assert len(refused.splitlines()) < 14


def test_nothing_is_said_of_a_choice_where_there_is_none() -> None:
    shown = text(1000)
    assert "Grounds" not in shown
    assert "<- chosen" not in shown
    assert shown.rstrip().endswith(".")


def test_grounds_of_an_inexact_choice_claim_no_gap() -> None:
    shown = " ".join(text(PLENTY, strategies=("shrink",)).split())
    assert "on any split. There is no rival." in shown


def test_prose_fits_the_width() -> None:
    prose = text(7000, 6000).split("Verdict")[1]
    assert max(map(len, prose.splitlines())) <= WIDTH


def test_on_a_gpu_allocated_reserved_and_context_stand_apart() -> None:
    gpu = {"name": "A100-SXM-80GB"}
    config = build_config(PLENTY)
    cluster = type(config.cluster).model_validate({"devices": (gpu, gpu)})
    comparison = compare(config.model_copy(update={"cluster": cluster}))
    shown = comparison_text(comparison)
    assert re.search(r"idle +allocated +reserved +context", shown)
    assert "peak/device" not in shown
    assert "peak/device" in text(PLENTY)
    record = comparison_record(comparison)["candidates"]
    assert isinstance(record, list)
    for one in record:
        predicted = one["predicted"]
        if predicted is not None:
            assert all(a < b for a, b in zip(predicted["peak_bytes"], predicted["reserved_bytes"], strict=True))
            assert set(predicted["context_bytes"]) == {800 * 2**20}
            assert all(peak >= 2 * 8_519_680 for peak in predicted["peak_bytes"])
            assert {stage["room"]["reported_bytes"] for stage in one["stages"]} == {int(79.1 * 2**30)}


def test_what_does_not_fit_a_gpu_says_what_there_is_to_allocate() -> None:
    """Of 900 MiB a context of 800, headroom of 27 and segments in part leave 52, and cuBLAS takes 64 where unknown."""
    gpu = {"kind": "cuda", "memory_bytes": 900 * 2**20, "flop_per_s": {"default": 1e9}, "memory_bytes_per_s": 1e9}
    config = build_config(PLENTY)
    cluster = type(config.cluster).model_validate({"devices": (gpu,)})
    whole = compare(config.model_copy(update={"cluster": cluster})).candidate("whole")
    assert whole is not None
    assert not whole.feasible
    assert "cuda:0 has 52.0 MiB to allocate of 900.0 MiB" in whole.reason


def test_elsewhere_nothing_is_reserved_beyond_what_is_allocated() -> None:
    for one in compare(build_config(PLENTY, PLENTY)).candidates:
        if one.predicted is not None:
            assert one.predicted.reserved_bytes == one.predicted.peak_bytes
            assert set(one.predicted.context_bytes) == {0}


def test_blocks_are_named_in_the_heading() -> None:
    blocks = (
        {"linear": 8},
        {"residual": {"hidden": 4}, "repeat": 3},
        {"residual": {"swiglu": 4}},
        {"norm": "rms_norm"},
    )
    text = _blocks(ModelConfig.model_validate({"in_features": 4, "out_features": 2, "blocks": blocks}))
    assert text == ["4", "8", "3 x residual 4", "residual swiglu 4", "rms_norm", "2"]


def test_what_was_not_considered_is_named() -> None:
    shown = " ".join(text(PLENTY).split())
    for strategy in ("tensor parallel", "optimizer state sharded alone", "in host memory"):
        assert strategy in shown.split("Not considered: ")[1]


def test_times_are_those_of_the_choice() -> None:
    comparison = compare(build_config(PLENTY, PLENTY))
    shown = comparison_text(comparison, is_complete=True)
    rows = [line.split() for line in shown.split("Another gradient")[0].splitlines() if "<- chosen" in line]
    assert [row[7] for row in rows] == ["1.00"]


def test_grounds_name_the_source_of_the_costs_in_a_sentence() -> None:
    """It said `costs from measured on ...`."""
    comparison = compare(build_config(PLENTY))
    assert comparison.certificate is not None
    for source, words in (
        ("measured on X, 1 rank at once", "; costs measured on X"),
        ("a table", "; costs from a table"),
    ):
        certificate = replace(comparison.certificate, cost_source=source)
        shown = " ".join(comparison_text(replace(comparison, certificate=certificate)).split())
        assert words in shown
