"""Figures of blocks of stages against the definition, and the bound that a search leaves."""

from __future__ import annotations

import math
import random

import pytest

from partition.plan import chain_search
from partition.plan.chain_problem import alike_problem
from partition.plan.chain_search import ChainSearch, ChainTables
from partition.plan.split import BOTTLENECK, SUM
from tests.plan.chains import random_chain, stage_bytes


def tables(seed: int = 1, num_layers: int = 9, limit_bytes: int = 10**6) -> ChainTables:
    chain = random_chain(random.Random(seed), num_layers)
    return ChainTables(alike_problem(chain, 3, 8, bytes_per_s=100.0, limit_bytes=limit_bytes))


def test_a_band_holds_every_stage_that_ends_in_its_block() -> None:
    of, width = tables(), 4
    band = of.band(slice(2, 6), width, of.problem.places[0])
    layers = of.problem.chain.layers
    for row, last in enumerate(range(2, 6)):
        for column, first in enumerate(range(last - width + 1, last + 1)):
            if first < 0:
                assert band.seconds[row, column] == math.inf
                continue
            own = layers[first : last + 1]
            assert band.seconds[row, column] == pytest.approx(sum(one.forward_s + one.backward_s for one in own))
            # A stage in the middle has both cuts, as if it were stage 1 of 3.
            if first > 0 and last < len(layers) - 1:
                assert band.stage_bytes(2)[row, column] == stage_bytes(of.problem, 1, first, last)


def test_no_bottleneck_lies_between_a_bound_and_the_next() -> None:
    of = tables()
    values = sorted(
        {
            sum(one.forward_s + one.backward_s for one in of.problem.chain.layers[first : last + 1])
            for first in range(9)
            for last in range(first, 9)
        }
        | {2 * layer.activation_bytes / 100.0 for layer in of.problem.chain.layers[:-1]}
    )
    for bound in (0.5, 2.0, 5.0, 9.0):
        search = ChainSearch(of, bound)
        search.best(SUM)
        above = min((one for one in values if one > bound * (1 + 1e-12)), default=math.inf)
        assert bound < search.next_bound <= above * (1 + 1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    of = tables(num_layers=40)
    whole = [ChainSearch(of, math.inf).best(criterion) for criterion in (SUM, BOTTLENECK)]
    monkeypatch.setattr(chain_search, "_BLOCK", 7)
    assert [ChainSearch(of, math.inf).best(criterion) for criterion in (SUM, BOTTLENECK)] == whole


def test_a_bound_below_every_split_admits_none() -> None:
    assert ChainSearch(tables(), 0.1).best(SUM) is None
