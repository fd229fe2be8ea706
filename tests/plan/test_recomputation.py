"""The layers to compute again: the fewest seconds within a limit, held against every choice there is."""

from __future__ import annotations

import random
from itertools import product

import pytest

from partition.graph import Spans
from partition.plan import Search
from partition.plan.layout import Layout
from partition.plan.occupancy import rank_peak
from partition.plan.recomputation import MOST_GROUPS, least_recomputation, tightest_recomputation
from tests.runtime.conftest import build_config

ACTIVATIONS = ("identity", "relu", "gelu", "tanh")
ROWS = 7


def spans_of(dropped: tuple[bool, ...]) -> Spans:
    """The runs of layers that are marked."""
    found: list[tuple[int, int]] = []
    for layer, is_dropped in enumerate(dropped):
        if is_dropped and found and found[-1][1] == layer - 1:
            found[-1] = (found[-1][0], layer)
        elif is_dropped:
            found.append((layer, layer))
    return tuple(found)


def random_search(seed: int, layers: int) -> Search:
    choose = random.Random(seed)
    widths = [choose.choice([3, 8, 8, 20, 40]) for _ in range(layers + 1)]
    return Search(
        build_config(
            features=tuple(widths),
            activation=choose.choice(ACTIVATIONS),
            loss=choose.choice(["cross_entropy", "mse"]),
            bias=choose.random() < 0.5,
            num_devices=1,
        )
    )


def priced(search: Search, spans: Spans) -> tuple[int, float]:
    """The bytes of one microbatch besides the static ones, and its seconds."""
    stage = search.model.stage(0, search.network.num_layers - 1, spans)
    layout = Layout.of("1f1b", 1, (ROWS,))
    layout = layout.recomputing([search.segment_alone(0)._replace(recompute=spans)], search.costs)
    peak, _ = rank_peak([layout.occupancy(stage)], layout.moments[0])
    cost, device = stage.microbatch(ROWS), search.cluster.devices[0]
    seconds = sum(part.seconds(device) for part in (cost.forward, cost.recompute, cost.backward))
    return peak - sum(stage.static_bytes(1).values()), seconds


@pytest.mark.parametrize("seed", range(8))
def test_no_choice_of_layers_is_faster_within_the_limit(seed: int) -> None:
    search = random_search(seed, layers=random.Random(seed).randint(1, 6))
    count = search.network.num_layers
    every = {spans: priced(search, spans) for spans in map(spans_of, product([False, True], repeat=count))}
    stage, device = search.model.stage(0, count - 1), search.cluster.devices[0]
    step_bytes = stage.step.memory.peak_bytes
    peaks = sorted({peak for peak, _ in every.values()})
    for limit in {*peaks, peaks[0] - 1, peaks[-1] + 1}:
        if limit < step_bytes:
            continue
        fitting = [seconds for peak, seconds in every.values() if peak <= limit]
        found = least_recomputation(stage, device, ROWS, limit)
        if not fitting:
            assert found is None
            continue
        assert found is not None, (limit, peaks)
        peak, seconds = every[found]
        assert peak <= limit
        assert seconds == pytest.approx(min(fitting), rel=1e-9)
    assert every[tightest_recomputation(stage, device, ROWS)][0] == peaks[0]


def test_more_layers_than_the_search_takes_are_kept_or_dropped_in_groups() -> None:
    """A network three times as deep is searched as fast; what is found fits."""
    search = Search(build_config(features=(8,) * (3 * MOST_GROUPS + 2), num_devices=1, l2_penalty=0.0))
    stage, device = search.model.stage(0, search.network.num_layers - 1), search.cluster.devices[0]
    plain, _ = priced(search, ())
    tight, _ = priced(search, tightest_recomputation(stage, device, ROWS))
    assert tight < plain / 4
    for limit in (plain * 9 // 10, plain // 2, tight):
        spans = least_recomputation(stage, device, ROWS, limit)
        assert spans is not None
        assert priced(search, spans)[0] <= limit
    assert least_recomputation(stage, device, ROWS, tight - 1) is None
    assert least_recomputation(stage, device, ROWS, plain) == ()
