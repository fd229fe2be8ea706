"""What stands behind a verdict, in words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from partition.plan import Search, compare_with
from partition.plan.explanation import Explanation, explain, explanation_record
from partition.report.explanation import explanation_words

from .test_comparison import PLENTY, build_config


def explained(*limits: int, with_break_even: bool = True, **planner: Any) -> Explanation:
    search = Search(build_config(*limits, **planner))
    return explain(search, compare_with(search), with_break_even=with_break_even)


def words(*limits: int, with_break_even: bool = True, **planner: Any) -> list[str]:
    return list(explanation_words(explained(*limits, with_break_even=with_break_even, **planner)))


def test_gain_frontier_and_break_even_have_a_paragraph_each() -> None:
    found = words(*[PLENTY] * 4, strategies=("accumulate", "pipeline", "data_parallel"), num_microbatches=(2, 4))
    starts = [one.split()[0] for one in found]
    assert starts[-2:] == ["Not", "Break-even:"]


def test_break_even_is_left_out_unless_asked_for() -> None:
    assert not any(one.startswith("Break-even") for one in words(PLENTY, PLENTY, with_break_even=False))


def test_where_nothing_changes_that_is_said() -> None:
    (last,) = words(PLENTY, strategies=("whole",), num_microbatches=(1,))[-1:]
    assert last == (
        "Break-even: the verdict, whole, is the same within a factor of 16 of these links, memory and minibatch."
    )


def test_memory_below_which_nothing_fits() -> None:
    (last,) = words(20000, strategies=("whole",))[-1:]
    assert re.search(r"changes with devices below \S+ KiB \(nothing fits\); a minibatch above [0-9]+ examples", last)


def test_remedies_name_what_they_take() -> None:
    found = words(1500, 1500)
    assert re.fullmatch(r"The least that would do: .*devices of \S+ (?:KiB|B) \(\S+\).*\.", found[-1])


def test_a_layer_too_large_is_named() -> None:
    found = words(600, 600)
    assert re.match(r"Layer 0 alone needs 1.0 KiB for its .* the largest device has 600 B: no split", found[0])
    assert not any("minibatch of" in one for one in found)


@pytest.mark.parametrize("limits", [(PLENTY,) * 4, (7000,) * 4, (1500,) * 2, (600,), (7000, 5000)])
def test_words_are_sentences(limits: tuple[int, ...]) -> None:
    for one in words(*limits):
        assert one.endswith(".")
        assert not re.search(r"\.\.|  | ,|: :|\bNone\b|\binf\b|\bnan\b|\b1 devices", one)


def test_record_has_what_the_words_say() -> None:
    record = explanation_record(explained(*[7000] * 3))
    assert {"attribution", "frontier", "rejected", "break_even", "not_considered", "verdict"} <= record.keys()
    of = record["break_even"]
    assert isinstance(of, dict)
    assert set(of) == {"link_bandwidth", "memory", "minibatch_size", "noise"}
    for flip in of["memory"]:
        assert set(flip) == {"side", "factor", "figure", "strategy", "candidate"}
