"""Shares of the gain: a chain of candidates that are there, whose gains add up."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from partition.plan import Search, compare_with
from partition.plan.attribution import Attribution, attribute
from partition.plan.shape import SCHEDULES

from .conftest import build_config, with_memory
from .test_progress import noise

FAST_LINKS = {"links": {"intra_node": {"bytes_per_s": 1e12, "latency_s": 0.0}}}


def attributed(search: Search) -> Attribution:
    comparison = compare_with(search)
    found = attribute(search, comparison.candidates, comparison.chosen)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("objective", ["time_to_target", "device_seconds"])
def test_shares_add_up_to_the_gain(seed: int, objective: str) -> None:
    draw = random.Random(seed)
    planner = {"objective": objective, "schedules": tuple(draw.sample(SCHEDULES, draw.randint(1, 6)))}
    links = {"intra_node": {"bytes_per_s": 10 ** draw.uniform(6, 11), "latency_s": 1e-6}}
    config = build_config(cluster={"links": links}, planner=planner)
    search = Search(with_memory(config, *[draw.randint(4500, 20000)] * 4))
    comparison = compare_with(search)
    found = attribute(search, comparison.candidates, comparison.chosen)
    if found is None:
        assert (
            comparison.chosen is None
            or comparison.chosen.num_devices == 1
            or not any(one.feasible and one.num_devices == 1 for one in comparison.candidates)
        )
        return
    assert comparison.chosen is not None
    assert found.shares[-1].candidate == comparison.chosen.name
    assert math.fsum(share.gain_s for share in found.shares) == pytest.approx(found.gain_s, rel=1e-12)


def test_what_is_admitted_more_of_is_never_a_loss() -> None:
    """By the objective of time; each link is the best of more than the one before."""
    found = attributed(Search(build_config(cluster=FAST_LINKS)))
    assert next(share.source for share in found.shares) == "devices"
    assert all(share.gain_s >= -1e-9 * found.baseline_s for share in found.shares)
    assert found.gain_s > 0


def test_the_plain_schedule_comes_before_the_best() -> None:
    search = Search(build_config(cluster=FAST_LINKS, planner={"strategies": ("accumulate", "pipeline")}))
    found = attributed(search)
    assert [share.source for share in found.shares] == ["devices", "schedule"]
    assert found.shares[0].candidate.endswith("gpipe")


def test_a_larger_minibatch_is_a_share_where_one_device_holds_a_smaller_one_only() -> None:
    """One device takes no exact way here, so the baseline shrinks; the devices are priced on its minibatch too."""
    config = build_config(cluster=FAST_LINKS, planner={"strategies": ("whole", "shrink", "pipeline")})
    whole = Search(config).whole()
    assert whole.predicted is not None
    search = Search(with_memory(config, *[max(whole.predicted.peak_bytes) - 1] * 4))
    found = attributed(search)
    assert found.baseline.startswith("shrink-")
    assert [share.source for share in found.shares][:2] == ["devices", "minibatch"]
    assert found.shares[0].minibatch_size < found.shares[1].minibatch_size == 22
    assert math.fsum(share.gain_s for share in found.shares) == pytest.approx(found.gain_s, rel=1e-12)


def test_with_a_noise_seconds_are_of_progress(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    path.write_text(noise(1e6).model_dump_json())
    found = attributed(Search(build_config(cluster=FAST_LINKS, planner={"noise": str(path)})))
    without = attributed(Search(build_config(cluster=FAST_LINKS)))
    assert found.chosen_s == pytest.approx(without.chosen_s * (1 + 1e6 / 22))


def test_one_device_that_is_the_choice_has_gained_nothing() -> None:
    search = Search(build_config(planner={"strategies": ("whole", "accumulate")}))
    comparison = compare_with(search)
    assert attribute(search, comparison.candidates, comparison.chosen) is None
