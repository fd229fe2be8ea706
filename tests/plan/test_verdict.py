"""The verdict as a person reads it, word for word, and the certificate beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from partition.config import ExperimentConfig
from partition.plan import Candidate, Comparison, compare
from partition.plan.verdict import describe, verdict
from partition.units import format_bytes, format_seconds, parse_bytes

from .conftest import build_config, with_memory


def chosen(comparison: Comparison) -> Candidate:
    assert comparison.chosen is not None
    return comparison.chosen


def candidate(config: ExperimentConfig, name: str) -> Candidate:
    found = compare(config).candidate(name)
    assert found is not None
    return found


def peak_bytes(found: Candidate) -> int:
    assert found.predicted is not None
    return max(found.predicted.peak_bytes)


@pytest.mark.parametrize(
    ("name", "planner", "expected"),
    [
        ("whole", {}, "the whole minibatch of 22 on one device"),
        ("shrink-11", {}, "a smaller minibatch of 11 on one device, learning rate 0.05"),
        ("accumulate-2", {}, "the minibatch of 22 in 2 microbatches of 11 on one device"),
        ("accumulate-4", {}, "the minibatch of 22 in 4 microbatches of at most 6 on one device"),
        (
            "pipeline-2x4-gpipe",
            {"num_microbatches": (4,)},
            "the minibatch of 22 in 4 microbatches of at most 6 through 2 stages, one a device, gpipe",
        ),
    ],
)
def test_a_candidate_is_described_in_a_phrase(name: str, planner: dict[str, Any], expected: str) -> None:
    assert describe(candidate(build_config(planner=planner), name)) == expected


def test_whole_needs_no_excuse() -> None:
    comparison = compare(build_config(planner={"strategies": ("whole",)}))
    assert comparison.verdict.startswith("Neither split nor shrink: whole (the whole minibatch of 22 on one device), ")


def test_pins_that_one_device_cannot_honour_are_not_called_a_lack_of_memory() -> None:
    pins = ({"layers": (0, 0), "device": 0}, {"layers": (1, 1), "device": 1})
    said = compare(build_config(planner={"pinned": pins})).verdict
    assert said.startswith("One device will not do for the whole minibatch: it would have all layers on ")
    assert "does not fit" not in said


def test_what_does_not_fit_is_said_in_numbers() -> None:
    config = build_config()
    needed = peak_bytes(candidate(config, "whole"))
    words = compare(with_memory(config, needed - 3000)).verdict
    expected = (
        f"The whole minibatch of 22 does not fit on one device: it needs {format_bytes(needed)}, simulated:0 has "
        f"{format_bytes(needed - 3000)} (2.9 KiB too much). "
    )
    assert words.startswith(expected)


def test_one_byte_too_much_does_not_fit_and_none_does() -> None:
    config = build_config(planner={"strategies": ("whole",)})
    needed = peak_bytes(candidate(config, "whole"))
    assert compare(with_memory(config, needed)).chosen is not None
    short = compare(with_memory(config, needed - 1))
    assert short.chosen is None
    assert "(1 B too much)" in short.verdict


def test_the_closest_of_unlike_devices_is_named() -> None:
    config = build_config(planner={"strategies": ("whole",)})
    words = compare(with_memory(config, 3000, 4000, 2000)).verdict
    assert "simulated:1 has 3.9 KiB" in words
    assert "simulated:0" not in words


def test_the_best_on_one_device_stands_beside_a_pipeline() -> None:
    links = {"intra_node": {"bytes_per_s": 1e12, "latency_s": 0.0}}
    planner = {"strategies": ("accumulate", "pipeline")}
    comparison = compare(build_config(cluster={"links": links}, planner=planner))
    pipeline = chosen(comparison)
    assert pipeline.strategy == "pipeline"
    alone = min(
        (one for one in comparison.candidates if one.exact_gradient and one.num_devices == 1 and one.predicted),
        key=lambda one: one.predicted.step_s,  # type: ignore[union-attr]
    )
    assert alone.predicted is not None
    assert pipeline.predicted is not None
    ratio = alone.predicted.step_s / pipeline.predicted.step_s
    expected = f"on one device is {alone.name}: {format_seconds(alone.predicted.step_s)} a step, {ratio:.2f} times as"
    assert expected in comparison.verdict


def test_shrinking_where_nothing_exact_fits_says_what_is_not_known() -> None:
    config = build_config(planner={"strategies": ("whole", "shrink")})
    comparison = compare(with_memory(config, peak_bytes(candidate(config, "whole")) - 1))
    assert "Shrink the minibatch: shrink-21 " in comparison.verdict
    assert comparison.verdict.endswith("how many more steps a smaller one needs has not been measured.")


def test_devices_of_the_size_that_a_refusal_names_would_do() -> None:
    """A promise in a verdict is kept: the closest candidate fits devices of the bytes that it was said to need."""
    config = build_config(planner={"strategies": ("accumulate",)})
    refused = compare(with_memory(config, 1000))
    (found,) = re.findall(r"Devices of (\S+ \S+) would do for it", refused.verdict)
    closest = min(refused.candidates, key=lambda one: one.overflow_bytes)
    assert peak_bytes(closest) <= parse_bytes(found) < 1.02 * peak_bytes(closest)
    assert compare(with_memory(config, parse_bytes(found))).chosen is not None


def test_larger_devices_are_no_remedy_where_there_is_room() -> None:
    """Sharded training measures no noise, on devices of any size."""
    planner = {"strategies": ("sharded",)}
    training = {"minibatch_size": 64, "noise": True}
    refused = compare(build_config(planner=planner, training=training))
    assert "cannot measure noise: its backward is torch's; take training.noise=false." in refused.verdict
    assert "would do for it" not in refused.verdict


def test_the_closest_is_one_that_larger_devices_would_help() -> None:
    """Where something else is refused in spite of its room."""
    planner = {"strategies": ("sharded", "whole")}
    config = build_config(planner=planner, training={"minibatch_size": 64, "noise": True})
    whole = peak_bytes(candidate(config, "whole"))
    refused = compare(with_memory(config, *(whole - 1,) * 4))
    assert f"Devices of {format_bytes(whole)} would do for it" in refused.verdict


def test_a_reason_is_not_repeated() -> None:
    words = compare(build_config(planner={"strategies": ("pipeline",), "num_stages": (9,)})).verdict
    assert words == "Nothing can be laid out: 9 stages, but the network has 4 layers; take num_stages <= 4."


def test_nothing_to_compare_names_the_section_that_narrows() -> None:
    comparison = compare(build_config(planner={"strategies": ("pipeline",), "num_stages": (1,)}))
    assert comparison.candidates == ()
    assert comparison.verdict == "The planner section leaves nothing to compare."


@pytest.mark.parametrize("limits", [(2**20,) * 4, (9000,) * 4, (9000,), (1000,) * 2, (2**20, 9000, 5000)])
def test_words_are_sentences(limits: tuple[int, ...]) -> None:
    words = compare(with_memory(build_config(), *limits)).verdict
    assert words.endswith(".")
    assert not re.search(r"\.\.|  | ,|: :|\bNone\b|\binf\b|\bnan\b|1 stages|1 microbatches", words)


# The certificate


def certificate(objective: str) -> tuple[Comparison, Any]:
    comparison = compare(build_config(planner={"objective": objective}))
    assert comparison.certificate is not None
    return comparison, comparison.certificate


@pytest.mark.parametrize("objective", ["time_to_target", "step_time", "device_seconds", "fewest_devices"])
def test_margin_is_that_of_the_objective(objective: str) -> None:
    """Costs wrong by a little less than the margin leave the choice best; by a little more they may not."""
    comparison, given = certificate(objective)
    best, margin = chosen(comparison), given.cost_error_margin

    def value(one: Candidate) -> float:
        assert one.predicted is not None
        return one.predicted.device_seconds_per_sample if objective == "device_seconds" else one.predicted.step_s

    exact = [one for one in comparison.candidates if one.feasible and one.exact_gradient and one is not best]
    rivals = [one for one in exact if objective != "fewest_devices" or one.num_devices == best.num_devices]
    nearest = min(map(value, rivals))
    assert value(best) * (1 + margin * 0.999) <= nearest * (1 - margin * 0.999) * (1 + 1e-6)
    assert value(best) * (1 + margin * 1.001) >= nearest * (1 - margin * 1.001)


def test_no_exact_candidate_beats_the_lower_bound() -> None:
    comparison, given = certificate("step_time")
    exact = [one.predicted.step_s for one in comparison.candidates if one.exact_gradient and one.predicted]
    assert min(exact) >= given.lower_bound_s > 0
    step_s = chosen(comparison).predicted.step_s  # type: ignore[union-attr]
    assert given.gap == pytest.approx(step_s / given.lower_bound_s - 1)


def test_a_bound_on_exact_steps_says_nothing_of_an_inexact_one() -> None:
    config = build_config(planner={"strategies": ("shrink",)})
    given = compare(config).certificate
    assert given is not None
    assert given.gap is None
    assert given.cost_error_margin is None


def test_choice_is_said_even_where_the_rest_was_not_compared() -> None:
    only = [one for one in compare(build_config()).candidates if one.strategy == "accumulate"][:1]
    assert verdict(only, replace(only[0])).startswith("Accumulate: ")
