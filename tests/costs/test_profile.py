"""Measured costs: curves between what was measured, files that are none, prices in place of rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.costs import CostsFile, build_costs, read_costs
from partition.costs.profile import Curve, LinkCurve, Machine, Messages, Overheads
from partition.errors import PartitionError
from partition.plan import Search
from partition.runtime.profiling import measure_layers
from partition.runtime.workers import Fleet
from partition.runtime.world import LocalWorld
from tests.runtime.conftest import build_config

Make = Callable[..., ExperimentConfig]


def test_seconds_lie_on_a_line_between_measured_sizes_and_go_on_along_the_last() -> None:
    curve = Curve(sizes=(2, 4, 8), seconds=(1.0, 2.0, 6.0))
    assert [curve.at(size) for size in (1, 2, 3, 4, 6, 8, 10)] == [1.0, 1.0, 1.5, 2.0, 4.0, 6.0, 8.0]
    assert Curve(sizes=(4,), seconds=(2.0,)).at(8) == 4.0


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "not a costs file"), ("[]", "not a costs file"), ('{"schema_version": 2}', "schema_version"),
     ("[" * 100_000, "not a costs file")],
)  # fmt: skip
def test_what_is_no_costs_file_is_refused_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PartitionError, match=words) as caught:
        read_costs(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match="partition profile"):
        read_costs(str(tmp_path / "none.json"))


def costs_file(config: ExperimentConfig) -> CostsFile:
    """Layers measured here, links made up."""
    layers = measure_layers(config, LocalWorld(1, 1), budget_s=0.01)
    line = Curve(sizes=(8, 1024), seconds=(1e-4, 2e-4))
    return CostsFile(
        kind="cpu",
        number_format="float32",
        optimizer=config.optimizer.name,
        machine=Machine(
            device="d", host="h", torch="t", num_threads=1, num_ranks=2, measured_at="2026-01-01", took_s=0
        ),
        operators=layers.operators,
        overheads=Overheads(**layers.overheads.model_dump()),
        messages=Messages(
            send=line, receive=line, links=(LinkCurve(source=0, destination=1, curve=line),), sums=line, share_s=1e-4
        ),
    )


def test_every_candidate_is_priced_by_measured_costs_and_runs_on_simulated_clocks_as_predicted(tmp_path: Path) -> None:
    config = build_config(planner={"num_microbatches": (4,), "num_stages": (2, 4)})
    path = tmp_path / "costs.json"
    path.write_text(costs_file(config).model_dump_json(), encoding="utf-8")
    search = Search(config.model_copy(update={"planner": config.planner.model_copy(update={"costs": str(path)})}))
    network = search.network
    x = np.zeros((config.training.minibatch_size, network.layers[0].in_features), dtype=np.float32)
    out_features = network.layers[-1].out_features
    y = (
        np.zeros(len(x), dtype=np.int64)
        if network.loss.has_class_targets
        else np.zeros((len(x), out_features), x.dtype)
    )
    ran = 0
    for candidate in search.candidates():
        if candidate.feasible and candidate.predicted and not candidate.sharding:
            assert candidate.cost_source.startswith("measured on d, 2 ranks at once")
            result = Fleet(search, candidate).train(x, y, np.arange(candidate.minibatch_size))
            assert result.step_s == pytest.approx(candidate.predicted.step_s, rel=1e-12)
            ran += 1
    assert ran > 5


def test_costs_of_another_network_or_optimizer_are_refused(tmp_path: Path) -> None:
    config = build_config()
    path = tmp_path / "costs.json"
    document = json.loads(costs_file(config).model_dump_json())
    path.write_text(json.dumps({**document, "optimizer": "adamw"}), encoding="utf-8")
    planner = config.planner.model_copy(update={"costs": str(path)})
    with pytest.raises(PartitionError, match="optimizer adamw"):
        Search(config.model_copy(update={"planner": planner}))
    operators = {"affine 1x1": {"sizes": [1], "seconds": [1.0]}}
    path.write_text(json.dumps({**document, "operators": operators}), encoding="utf-8")
    with pytest.raises(PartitionError, match="no measurement of"):
        Search(config.model_copy(update={"planner": planner})).candidates()


def test_faster_links_divide_what_bytes_take_and_no_latency(tmp_path: Path) -> None:
    """Measured links take 0.1 ms for next to nothing and 0.2 ms for 1024 bytes; so do sums."""
    config = build_config(num_devices=2)
    path = tmp_path / "costs.json"
    path.write_text(costs_file(config).model_dump_json())
    planner = config.planner.model_copy(update={"costs": str(path)})
    cluster, _ = build_costs(config.model_copy(update={"planner": planner}))
    faster = replace(cluster, bandwidth_factor=4.0)
    assert cluster.transfer_s(0, 1, 1024) == pytest.approx(2e-4)
    assert faster.transfer_s(0, 1, 1024) == pytest.approx(1.25e-4)
    assert faster.transfer_s(0, 1, 0) == cluster.transfer_s(0, 1, 0) == pytest.approx(1e-4)
    assert faster.sum_s([0, 1], [1024, 1024]) == pytest.approx(2 * 1.25e-4)
