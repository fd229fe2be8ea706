"""The ways that a table of layer costs admits, whose microbatches have one size."""

from __future__ import annotations

from pathlib import Path

from partition.plan.search import Search
from tests.plan.tables import ROWS, chain_config, write_table


def test_one_microbatch_is_the_whole_minibatch(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    names = {of.name for of in Search(chain_config(table, training={"minibatch_size": ROWS})).candidates()}
    assert "whole" in names
    assert not [name for name in names if name.startswith(("accumulate", "shrink", "data_parallel", "hybrid"))]
