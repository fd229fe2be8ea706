"""The runner-up, and why each other strategy is not the choice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from partition.plan import Candidate, compare
from partition.plan.choice import value
from partition.plan.rejection import NEAR_TIE, rejections, runners_up
from partition.units import format_seconds

from .conftest import build_config, with_memory


def taking(like: Candidate, name: str, strategy: str, step_s: float) -> Candidate:
    assert like.predicted is not None
    return replace(like, name=name, strategy=strategy, predicted=replace(like.predicted, step_s=step_s))


@pytest.fixture(scope="module")
def like() -> Candidate:
    found = compare(build_config()).candidate("accumulate-2")
    assert found is not None
    return found


def test_next_best_and_next_best_of_another_strategy(like: Candidate) -> None:
    best, twin, other, last = (
        taking(like, name, strategy, step_s)
        for name, strategy, step_s in (
            ("best", "pipeline", 1.0),
            ("twin", "pipeline", 1.01),
            ("other", "accumulate", 1.5),
            ("last", "whole", 2.0),
        )
    )
    found = list(runners_up([last, other, twin, best], best, "step_time"))
    assert [(one.candidate.name, one.times, one.is_tie) for one in found] == [
        ("twin", 1.01, True),
        ("other", 1.5, False),
    ]
    (only,) = runners_up([last, other, best], best, "step_time")
    assert only.candidate.name == "other"
    assert list(runners_up([best], best, "step_time")) == []


@pytest.mark.parametrize(("times", "expected"), [(1 + NEAR_TIE * 0.9, True), (1 + NEAR_TIE * 1.1, False)])
def test_near_ties_are_called_ties(like: Candidate, times: float, expected: bool) -> None:
    best, other = taking(like, "best", "pipeline", 1.0), taking(like, "other", "whole", times)
    (found,) = runners_up([best, other], best, "step_time")
    assert found.is_tie is expected


def test_a_tie_is_a_word_of_the_verdict() -> None:
    words = compare(build_config(planner={"strategies": ("accumulate",)})).verdict
    assert "Runner-up: accumulate-" in words


@pytest.mark.parametrize("objective", ["time_to_target", "step_time", "device_seconds", "fewest_devices"])
@pytest.mark.parametrize("limit", [2**20, 6000, 3000])
def test_every_strategy_but_the_choice_has_a_reason_with_a_number(objective: str, limit: int) -> None:
    comparison = compare(with_memory(build_config(planner={"objective": objective}), *[limit] * 4))
    found = rejections(comparison.candidates, comparison.chosen, objective)
    considered = {one.strategy for one in comparison.candidates}
    chosen = {comparison.chosen.strategy} if comparison.chosen else set()
    assert {one.strategy for one in found} == considered - chosen
    assert len(found) == len(considered - chosen)
    assert all(any(letter.isdigit() for letter in one.reason) for one in found)


def test_what_is_slower_says_by_how_much() -> None:
    comparison = compare(build_config())
    chosen = comparison.chosen
    assert chosen is not None
    (found,) = (one for one in rejections(comparison.candidates, chosen, "step_time") if one.strategy == "accumulate")
    rival = comparison.candidate(found.candidate)
    assert rival is not None
    here, there = value(rival, "step_time"), value(chosen, "step_time")
    assert found.reason == f"{here / there:.2f} times the time: {format_seconds(here)} against {format_seconds(there)}"


def test_what_does_not_fit_says_what_is_missing() -> None:
    comparison = compare(with_memory(build_config(), *[6000] * 2))
    of = {one.strategy: one for one in rejections(comparison.candidates, comparison.chosen, "time_to_target")}
    whole = comparison.candidate("whole")
    assert whole is not None
    assert of["whole"].reason == whole.reason
