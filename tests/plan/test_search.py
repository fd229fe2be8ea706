"""What a table of layer costs is planned with."""

from __future__ import annotations

from pathlib import Path

from partition.plan import compare
from partition.plan.search import Search
from tests.plan.conftest import build_config
from tests.plan.tables import ROWS, chain_config, write_table


def test_what_a_table_is_planned_with(tmp_path: Path) -> None:
    """8 microbatches: accumulated, through pipelines of 2 to 4 devices, on 2 or 4 replicas, or fewer of them."""
    table = write_table(tmp_path)
    comparison = compare(chain_config(table))
    names = {candidate.name for candidate in comparison.candidates}
    assert {"accumulate-8", "pipeline-4x8-zb_h1", "pipeline-3x8-zbv", "data_parallel-4x2"} <= names
    assert {"hybrid-2x2x4-1f1b", "shrink-16", "shrink-8", "shrink-4"} <= names
    assert "whole" not in names
    assert not [name for name in names if name.startswith("sharded")]
    assert comparison.chosen is not None
    assert comparison.certificate is not None
    assert comparison.certificate.cost_source == "the table chain.csv"
    assert 0 < comparison.certificate.lower_bound_s <= comparison.chosen.predicted.step_s  # type: ignore[union-attr]
    assert "sharded parameters, which the table chain.csv cannot price" in comparison.not_considered
    assert "recomputation, which the table chain.csv cannot price" in comparison.not_considered
    sizes = {of.minibatch_size / of.num_microbatches / of.num_replicas for of in comparison.candidates}
    assert sizes == {ROWS}


def test_slower_devices_get_fewer_layers(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    cluster = build_config().cluster
    fast, slow = (cluster.devices[0].model_copy(update={"flop_per_s": (("default", rate),)}) for rate in (1e9, 0.25e9))
    unlike = cluster.model_copy(update={"devices": (fast, slow)})
    planner = {"strategies": ("pipeline",), "schedules": ("1f1b",)}
    (found,) = Search(chain_config(table, cluster=unlike, planner=planner)).candidates()
    sizes = {stage.device_index: stage.last_layer - stage.first_layer for stage in found.stages}
    assert sizes[0] > sizes[1]
