"""Plan files verified again."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from partition.errors import PartitionError
from partition.plan import Search, compare
from partition.plan.certificate import Certificate
from partition.plan.plan_file import plan_record
from partition.plan.split import Segment
from partition.plan.verification import check_all, verify_plan

from .conftest import build_config


@pytest.mark.parametrize("strategy", ["accumulate", "pipeline", "hybrid", "data_parallel"])
def test_a_plan_passes_every_check(strategy: str, tmp_path: Path) -> None:
    config = build_config(planner={"strategies": (strategy,)})
    chosen = compare(config).chosen
    assert chosen is not None
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_record(config, chosen, "")))
    candidate, checks = verify_plan(path, Search(config))
    assert candidate == chosen
    assert {"layers", "memory", "bound"} <= {check.what for check in checks}
    assert all(check.passed for check in checks), checks
    check_all(checks, path)


def falsified(value: object) -> object:
    """Another one of the same type."""
    if isinstance(value, str):
        return f"{value}x"
    return 1.0 if value is None else value * 1.001 if isinstance(value, float) else 7


@pytest.mark.parametrize(
    "keys",
    [
        ("candidate", "name"),
        ("candidate", "predicted", "relative_progress_s"),
        ("verdict",),
        *[("certificate", one.name) for one in fields(Certificate)],
        ("certificate", "added"),
    ],
)
def test_every_claim_is_verified(keys: tuple[str, ...], tmp_path: Path) -> None:
    config = build_config(planner={"num_microbatches": (2, 4), "schedules": ("1f1b",)})
    comparison, path = compare(config), tmp_path / "plan.json"
    assert comparison.chosen is not None
    record = plan_record(config, comparison.chosen, comparison.verdict, comparison.certificate)
    record = json.loads(json.dumps(record))
    path.write_text(json.dumps(record))
    assert [check.found for check in verify_plan(path, Search(config))[1] if check.what == "choice"] == [
        f"{comparison.chosen.name} of {len(comparison.candidates)} candidates, planned anew, with the same certificate"
    ]
    of = record
    for key in keys[:-1]:
        of = of[key]
    of[keys[-1]] = falsified(of.get(keys[-1]))
    path.write_text(json.dumps(record))
    (failed,) = [check for check in verify_plan(path, Search(config))[1] if not check.passed]
    assert (failed.what, failed.found.split()[0]) == ("choice", keys[-1])


def test_a_choice_under_another_objective_is_not_verified(tmp_path: Path) -> None:
    config = build_config()
    comparison, path = compare(config), tmp_path / "plan.json"
    assert comparison.chosen is not None
    path.write_text(json.dumps(plan_record(config, comparison.chosen, comparison.verdict, comparison.certificate)))
    _, checks = verify_plan(path, Search(build_config(planner={"objective": "fewest_devices"})))
    assert [check.found for check in checks if not check.passed] == ["was made with another planner section"]


def test_a_worse_split_than_the_best_is_told(tmp_path: Path) -> None:
    planner = {"strategies": ("pipeline",), "schedules": ("1f1b",), "num_stages": (2,), "num_microbatches": (4,)}
    config = build_config(planner=planner)
    search = Search(config)
    (shape,) = search.shapes()
    uneven = search.price(shape, [Segment(0, 0, 0), Segment(1, 1, search.network.num_layers - 1)])
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_record(config, uneven, "")))
    _, checks = verify_plan(path, search)
    assert [check.what for check in checks if not check.passed] == ["split"]
    with pytest.raises(PartitionError, match=r"split: sum \+ \(M - 1\) x bottleneck is .*; plan again"):
        check_all(checks, path)
