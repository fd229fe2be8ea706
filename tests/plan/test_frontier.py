"""The frontier against its definition, on figures drawn at random."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from partition.plan import Candidate, compare
from partition.plan.frontier import frontier

from .conftest import build_config


@pytest.mark.parametrize("seed", range(40))
def test_it_is_what_no_other_dominates(seed: int) -> None:
    draw = random.Random(seed)
    like = compare(build_config()).candidate("accumulate-2")
    assert like is not None
    assert like.predicted is not None
    candidates = []
    for index in range(draw.randint(1, 30)):
        devices = draw.randint(1, 4)
        predicted = replace(
            like.predicted, step_s=float(draw.randint(1, 9)), peak_bytes=(draw.randint(1, 9),) * devices
        )
        candidates.append(
            replace(like, name=f"{index:02}", num_devices=devices, predicted=predicted, feasible=draw.random() < 0.8)
        )

    def figures(one: Candidate) -> tuple[float, int, int]:
        assert one.predicted is not None
        return one.predicted.step_s, one.num_devices, max(one.predicted.peak_bytes)

    able = {one.name: figures(one) for one in candidates if one.feasible}
    expected = {
        name
        for name, own in able.items()
        if not any(
            all(a <= b for a, b in zip(other, own, strict=True)) and (other != own or rival < name)
            for rival, other in able.items()
            if rival != name
        )
    }
    found = frontier(candidates, "time_to_target")
    assert {one.name for one in found} == expected
    assert [figures(one)[0] for one in found] == sorted(figures(one)[0] for one in found)


def test_the_choice_by_step_time_is_its_fastest() -> None:
    comparison = compare(build_config(planner={"objective": "step_time"}))
    assert comparison.chosen is not None
    assert comparison.chosen.predicted is not None
    fastest = frontier(comparison.candidates, "step_time")[0]
    assert fastest.predicted is not None
    assert fastest.predicted.step_s == pytest.approx(comparison.chosen.predicted.step_s, rel=1e-5)


def test_inexact_gradients_are_not_on_it_without_a_noise() -> None:
    assert all(one.exact_gradient for one in frontier(compare(build_config()).candidates, "time_to_target"))
