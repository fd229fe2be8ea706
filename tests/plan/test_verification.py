"""Plan files verified again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from partition.errors import PartitionError
from partition.plan import Search, compare
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
