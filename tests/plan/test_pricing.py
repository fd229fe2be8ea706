"""Prices of a table of layer costs: the same as of the network that the table was taken from."""

from __future__ import annotations

from pathlib import Path

import pytest

from partition.plan.search import Search
from partition.plan.shape import Shape
from tests.plan.tables import candidates_with_layout, chain_config, export, network_search, segments, write_table


def test_a_network_and_its_table_cost_the_same(tmp_path: Path) -> None:
    """But for what a table has no column for: the optimizer step of the first stage, and workspace of kernels.

    Without an activation no tensor is kept by two layers, so the rows add up.
    """
    network = network_search("identity", num_microbatches=(8,), schedules=("gpipe", "1f1b", "zb_h1"),
                             strategies=("accumulate", "pipeline"))  # fmt: skip
    export(network, tmp_path / "chain.csv")
    chain = Search(chain_config(tmp_path / "chain.csv"))
    found = candidates_with_layout(network)
    assert len(found) == 10
    for of_network in found:
        of_chain = chain.price(Shape.of(of_network), segments(of_network))
        assert of_network.predicted is not None
        assert of_chain.predicted is not None
        first, devices = of_network.stages[0], network.cluster.devices
        step_s = network.costs.stage(first.first_layer, first.last_layer).step.seconds(devices[0])
        assert of_chain.predicted.step_s + step_s == pytest.approx(of_network.predicted.step_s, rel=1e-12)
        assert of_chain.predicted.communication_bytes == of_network.predicted.communication_bytes
        for one, other in zip(of_network.stages, of_chain.stages, strict=True):
            assert other.memory.workspace_bytes == 0
            assert other.memory.peak_bytes == one.memory.peak_bytes - one.memory.workspace_bytes, of_network.name


def test_where_two_layers_keep_one_tensor_rows_count_it_twice(tmp_path: Path) -> None:
    """ReLU keeps its output, which the next layer keeps as its input: a table of layers alone is on the safe side."""
    network = network_search("relu", num_microbatches=(8,), schedules=("1f1b",), strategies=("pipeline",))
    export(network, tmp_path / "chain.csv")
    chain = Search(chain_config(tmp_path / "chain.csv"))
    for of_network in candidates_with_layout(network):
        of_chain = chain.price(Shape.of(of_network), segments(of_network))
        for one, other in zip(of_network.stages, of_chain.stages, strict=True):
            assert other.memory.peak_bytes > one.memory.peak_bytes - one.memory.workspace_bytes


def test_other_microbatches_are_infeasible_in_words(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    found = Search(chain_config(table, planner={"num_microbatches": (4,)})).candidates()
    reasons = {of.name: of.reason for of in found}
    expected = "microbatches of 8 examples, but there are costs of 4 only; take num_microbatches = 8"
    assert reasons["accumulate-4"] == reasons["pipeline-2x4-1f1b"] == expected
