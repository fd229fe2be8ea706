"""docs/schedules.md is what the replay says, and would not be if the replay said something else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from partition.schedule import GENERATORS, Replay, replay, simulation
from partition.schedule.simulation import figures
from scripts.make_schedule_docs import (
    DOCS,
    MICROBATCHES,
    RANKS,
    document,
    replayed_idle,
    replayed_in_flight,
    unit_simulation,
)
from scripts.published_schedules import ENTRIES, Entry, Size


def test_the_document_is_that_of_the_replay() -> None:
    """Where this fails: python -m scripts.make_schedule_docs, and read what has changed."""
    assert (DOCS / "schedules.md").read_text(encoding="utf-8") == document()


def test_another_replay_makes_another_document(monkeypatch: pytest.MonkeyPatch) -> None:
    def slower(*arguments: Any, **options: Any) -> Replay:
        result = replay(*arguments, **options)
        return replace(result, makespan_s=result.makespan_s * 1.001)

    monkeypatch.setattr(simulation, "replay", slower)
    assert (DOCS / "schedules.md").read_text(encoding="utf-8") != document()


def test_another_ledger_makes_another_document(monkeypatch: pytest.MonkeyPatch) -> None:
    def heavier(*arguments: Any, **options: Any) -> Replay:
        result = replay(*arguments, **options)
        return replace(result, ranks=tuple(replace(one, peak_bytes=one.peak_bytes + 1) for one in result.ranks))

    monkeypatch.setattr(simulation, "replay", heavier)
    assert (DOCS / "schedules.md").read_text(encoding="utf-8") != document()


@pytest.mark.parametrize("ranks", [1, 2, RANKS, 7])
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_replay_says_what_was_published(entry: Entry, ranks: int) -> None:
    for microbatches in (2 * ranks, 4 * ranks):
        made = unit_simulation(entry.name, ranks, microbatches)
        size = Size(ranks, microbatches, made.schedule.num_stages // ranks)
        found = figures(made)
        assert replayed_idle(entry, found) == pytest.approx(entry.idle.value(size))
        if ranks > 1:
            assert replayed_in_flight(made, found) == pytest.approx(entry.in_flight.value(size))


def test_every_schedule_for_training_is_drawn_and_every_picture_is_there() -> None:
    names = [entry.name for entry in ENTRIES]
    assert names == [name for name, made in GENERATORS.items() if not made.is_forward_only]
    text = (DOCS / "schedules.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((schedules/[^)]*)\)", text)
    assert linked == [f"schedules/{name}.svg" for name in names]
    for link in linked:
        picture = (DOCS / Path(link)).read_text(encoding="utf-8")
        assert f"{RANKS} ranks, {MICROBATCHES} microbatches: step" in picture
