"""Forms of recomputation, and the peaks of stages under them."""

from __future__ import annotations

from itertools import pairwise

from partition.plan import Search
from partition.plan.layout import Layout
from partition.plan.occupancy import rank_peak
from partition.plan.peaks import FORMS, StagePeaks, every_other_run, everything
from tests.runtime.conftest import build_config


def test_runs_are_apart_and_about_the_root_of_the_number_of_layers() -> None:
    assert everything(2, 5) == ((2, 5),)
    assert every_other_run(0, 8) == ((0, 2), (4, 6), (8, 8))
    assert every_other_run(3, 3) == ((3, 3),)
    for last in range(40):
        spans = every_other_run(0, last)
        assert all(before[1] + 2 == after[0] for before, after in pairwise(spans))
        assert spans[-1][1] in (last, last - 1)


def test_the_peaks_are_those_of_the_rows() -> None:
    """Whole rows of moments, with R where the stage has it, give the same bytes."""
    search = Search(build_config(features=(6, *(9,) * 8, 5)))
    layout = Layout.of("1f1b", 3, (5, 5, 4, 4))
    peaks = StagePeaks(layout, layout.occupancy, search.model)
    for index, (first, last) in enumerate(((0, 3), (4, 6), (7, 8))):
        found = []
        for spans in ((), *(form(first, last) for form in FORMS)):
            stage = search.model.stage(first, last, spans)
            rows = layout.recomputing_everywhere if stage.has_recomputation else layout
            expected, _ = rank_peak([layout.occupancy(stage)], rows.moments[index])
            found.append(expected)
            assert peaks.of(index, first, last, spans) == expected
        assert peaks.plain(index, first, last) == found[0]
        assert peaks.recomputing(index, first, last) == min(found[1:])
