"""An experiment on a table of layer costs: what it refuses, and what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from partition.errors import PartitionError
from partition.plan import Segment
from partition.plan.compare import compare_with
from partition.plan.search import Search
from partition.plan.shape import Shape
from tests.plan.tables import chain_config, export, network_search, write_table


def test_a_backward_in_one_piece_has_no_zero_bubble_schedules(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    export(network_search("identity"), table, without=("input_grad_s", "weight_grad_s"))
    search = Search(chain_config(table))
    assert {of.schedule for of in search.candidates()} == {"1f1b", "gpipe", "interleaved_1f1b"}
    assert "zbv, which the table chain.csv cannot price" in compare_with(search).not_considered
    with pytest.raises(PartitionError, match=r"planner\.schedules: zb_h1 splits the backward, the table chain\.csv"):
        Search(chain_config(table, planner={"schedules": ("zb_h1",)}))
    shape = Shape(name="x", strategy="pipeline", minibatch_size=32, num_microbatches=8, num_ranks=2, num_stages=2,
                  schedule="zb_h2")  # fmt: skip
    with pytest.raises(PartitionError, match="zb_h2 splits the backward"):
        search.price(shape, [Segment(0, 0, 2), Segment(1, 3, 5)])


def test_a_table_without_memory_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    export(network_search("identity"), table, without=("saved_bytes",))
    with pytest.raises(
        PartitionError, match=r"has no column saved_bytes, without which the memory of cluster\.devices"
    ):
        Search(chain_config(table))


def test_a_table_has_no_network_to_run(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    search = Search(chain_config(table))
    for attribute in ("config", "model", "network"):
        with pytest.raises(PartitionError, match="no network to run"):
            getattr(search, attribute)
