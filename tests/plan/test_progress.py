"""The price of a smaller minibatch, and the learning rate that goes with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from partition.costs import GradientNoise
from partition.errors import PartitionError
from partition.plan import Candidate, Comparison, Search, compare
from partition.plan.choice import choose, value
from partition.plan.noise_break_even import noise_break_evens
from partition.plan.plan_file import plan_record, read_plan
from partition.plan.progress import LearningRateRule, progress_s, usable_noise, without_progress

from .conftest import build_config


def noise(b_noise: float | None, **changes: Any) -> GradientNoise:
    values: dict[str, Any] = {
        "identifiable": b_noise is not None,
        "reason": "" if b_noise is not None else "too few steps",
        "b_noise": b_noise,
        "interval": None if b_noise is None else (b_noise / 2, b_noise * 2),
        "tr_sigma": 1.0,
        "grad_sq_norm": 1.0,
        "steps": 100,
        "minibatch_size": 22,
        "num_examples": 1000,
        "learning_rate": 0.1,
        "optimizer": "sgd",
        "data_source": "synthetic",
        "model": {},
    }
    return GradientNoise(**{**values, **changes})


def compared(tmp_path: Path, b_noise: float | None, optimizer: str = "sgd", **planner: Any) -> Comparison:
    path = tmp_path / "noise.json"
    path.write_text(noise(b_noise, optimizer=optimizer).model_dump_json())
    section = {"name": optimizer, "lr": 0.1}
    return compare(build_config(planner={"noise": str(path), **planner}, optimizer=section))


def named(comparison: Comparison, name: str) -> Candidate:
    found = comparison.candidate(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("linear", 0.02), ("sqrt", 0.1 * 0.2**0.5), ("constant", 0.1), ("noise", 0.1 * (1 + 4) / (1 + 20))],
)
def test_rules(rule: str, expected: float) -> None:
    """Of a fifth of 100 examples; B_noise = 400 is 4 times the one and 20 times the other."""
    given = LearningRateRule(name=rule, lr=0.1, minibatch_size=100, b_noise=400.0)
    assert given.at(20) == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["linear", "sqrt", "noise", "constant"])
def test_every_rule_leaves_the_experiments_own_minibatch_alone(rule: str) -> None:
    assert LearningRateRule(name=rule, lr=0.3, minibatch_size=64, b_noise=10.0).at(64) == pytest.approx(0.3)


def test_noise_rule_is_linear_where_noise_is_large() -> None:
    large = LearningRateRule(name="noise", lr=0.1, minibatch_size=100, b_noise=1e9)
    assert large.at(10) == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "rule", "expected", "name"),
    [
        ("sgd", None, 0.05, "linear"),
        ("adam", None, 0.1 / 2**0.5, "sqrt"),
        ("adamw", None, 0.1 / 2**0.5, "sqrt"),
        ("sgd", "constant", 0.1, "constant"),
        ("adam", "linear", 0.05, "linear"),
    ],
)
def test_candidates_state_their_rule(optimizer: str, rule: str | None, expected: float, name: str) -> None:
    config = build_config(optimizer={"name": optimizer, "lr": 0.1}, planner={"learning_rate_rule": rule})
    comparison = compare(config)
    shrunk, exact = named(comparison, "shrink-11"), named(comparison, "accumulate-2")
    assert shrunk.learning_rate == pytest.approx(expected)
    assert shrunk.learning_rate_rule == name
    assert (exact.learning_rate, exact.learning_rate_rule) == (0.1, "given")


def test_noise_rule_needs_a_noise(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match=r"planner.learning_rate_rule: noise takes .* planner.noise is not given"):
        compare(build_config(planner={"learning_rate_rule": "noise"}))
    with pytest.raises(PartitionError, match=r"planner.noise holds no identifiable one"):
        compared(tmp_path, None, learning_rate_rule="noise")


def test_noise_rule_takes_the_files(tmp_path: Path) -> None:
    comparison = compared(tmp_path, 44.0, learning_rate_rule="noise")
    assert named(comparison, "shrink-11").learning_rate == pytest.approx(0.1 * (1 + 2) / (1 + 4))


def test_every_candidate_is_priced_by_a_measured_noise(tmp_path: Path) -> None:
    comparison = compared(tmp_path, 44.0)
    for one in comparison.candidates:
        if one.predicted:
            expected_s = progress_s(one.predicted.step_s, one.minibatch_size, 44.0)
            assert one.predicted.relative_progress_s == expected_s
            assert expected_s == pytest.approx(one.predicted.step_s * (1 + 44 / one.minibatch_size))


@pytest.mark.parametrize(("b_noise", "optimizer"), [(None, "sgd"), (44.0, "adam")])
def test_nothing_is_priced_by_what_says_nothing(tmp_path: Path, b_noise: float | None, optimizer: str) -> None:
    """A noise that is not identified; and one of Adam, for which the rule does not hold."""
    comparison = compared(tmp_path, b_noise, optimizer)
    assert all(one.predicted is None or one.predicted.relative_progress_s is None for one in comparison.candidates)
    assert comparison.chosen is not None
    assert comparison.chosen.exact_gradient
    assert ("is known for sgd only" in comparison.verdict) is (optimizer == "adam")


def test_a_noise_of_another_optimizer_is_not_used() -> None:
    assert usable_noise(build_config(), noise(10.0)) == 10.0
    assert usable_noise(build_config(), noise(10.0, optimizer="adam")) is None
    assert usable_noise(build_config(optimizer={"name": "adam", "lr": 0.1}), noise(10.0)) is None


@pytest.mark.parametrize("objective", ["time_to_target", "device_seconds", "fewest_devices"])
def test_a_small_noise_shrinks_and_a_large_one_does_not(tmp_path: Path, objective: str) -> None:
    small, large = (compared(tmp_path, of, objective=objective).chosen for of in (0.01, 1e6))
    assert small is not None
    assert large is not None
    assert small.strategy == "shrink"
    assert large.exact_gradient


def test_a_shorter_step_alone_is_no_progress(tmp_path: Path) -> None:
    chosen = compared(tmp_path, 0.01, objective="step_time").chosen
    assert chosen is not None
    assert chosen.exact_gradient


def test_a_plan_made_with_a_noise_is_one_without(tmp_path: Path) -> None:
    """What planner says is free to change after planning; so is the noise, which no layout depends on."""
    comparison = compared(tmp_path, 44.0)
    exact = named(comparison, "accumulate-2")
    assert exact.predicted is not None
    assert exact.predicted.relative_progress_s is not None
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_record(comparison.config, exact, comparison.verdict)))
    found = read_plan(path, Search(build_config()))
    assert found == without_progress(exact)


def test_a_choice_by_noise_is_held_against_exact_ways_on_that_axis(tmp_path: Path) -> None:
    comparison = compared(tmp_path, 0.01)
    chosen = comparison.chosen
    assert chosen is not None
    assert "times as long" not in comparison.verdict.split("By the measured noise")[0]
    exact = choose([one for one in comparison.candidates if one.exact_gradient], "time_to_target")
    assert exact is not None
    times = value(exact, "time_to_target") / value(chosen, "time_to_target")
    assert f"the best exact way, {exact.name}, takes {times:.2f} times as long to a target." in comparison.verdict


def test_differences_under_a_tenth_from_noise_are_ties(tmp_path: Path) -> None:
    even = next(noise_break_evens(compare(build_config()).candidates))
    assert even.even_at is not None
    comparison = compared(tmp_path, even.even_at * 0.999)
    assert comparison.chosen is not None
    assert comparison.chosen.name == even.rival
    assert f"By the measured noise {even.candidate} takes 1.00 times as long to a target: a tie" in comparison.verdict


def times(candidate: Candidate, factor: float) -> Candidate:
    """What it takes, times a factor."""
    predicted = candidate.predicted
    assert predicted is not None
    assert predicted.relative_progress_s is not None
    progress_s = predicted.relative_progress_s * factor
    changed = replace(predicted, step_s=predicted.step_s * factor, relative_progress_s=progress_s)
    return replace(candidate, predicted=changed)


@pytest.mark.parametrize("b_noise", [2.0, 10.0, 14.0, 18.0, 30.0])
def test_margin_is_that_of_the_choice_where_noise_is_priced(tmp_path: Path, b_noise: float) -> None:
    """An inexact rival ahead by less than a tie was said to be as good; an inexact choice to stand up to its lead."""
    strategies = ("shrink", "accumulate")
    comparison = compared(tmp_path, b_noise, strategies=strategies, num_microbatches=(2,), minibatch_sizes=(11,))
    best, given = comparison.chosen, comparison.certificate
    assert best is not None
    assert given is not None
    margin = given.cost_error_margin
    assert margin is not None
    rivals = [one for one in comparison.candidates if one.feasible and one is not best]

    def holds(error: float) -> bool:
        pairs = [(times(best, 1 + error), times(rival, 1 - error)) for rival in rivals]
        return all(choose(pair, "time_to_target") is pair[0] for pair in pairs)

    assert holds(margin * 0.999)
    assert not holds(margin * 1.001 + 1e-5)
