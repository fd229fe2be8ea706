"""Constraints as they are written: what is not there, and what nothing can honour, in one line each."""

from __future__ import annotations

import pytest

from partition.errors import PartitionError
from partition.plan.asked_constraints import IndexOrName, Known, read_constraints
from partition.plan.constraints import Pin, Run

TABLE = Known(num_layers=4, layer_names=("in", "mid", "mid", "out"), device_names=("cpu:0", "cpu:1"))
NETWORK = Known(num_layers=4, layer_names=(), device_names=("cpu:0", "cpu:1"))


def test_layers_and_devices_by_index_or_name() -> None:
    """Of a table; a name that is there once is enough."""
    found = read_constraints([("k", ("in", 1))], [("p", (3, "out"), "cpu:1"), ("q", (2, 2), 0)], TABLE)
    assert found.together == (Run(0, 1),)
    assert found.pins == (Pin(Run(3, 3), 1), Pin(Run(2, 2), 0))


@pytest.mark.parametrize(
    ("known", "ends", "message"),
    [
        (TABLE, (0, 4), "k: there is no layer 4; layers are 0 to 3"),
        (TABLE, (0, "nope"), "k: no layer is named 'nope'; write a name of the table, or 0 to 3"),
        (TABLE, ("in", "mid"), "k: layers 1 and 2 are both named 'mid'; write the index"),
        (TABLE, ("out", "in"), "k: layer 0 comes before layer 3; give the first one first"),
        (TABLE, (1, 1), "k: layer 1 is alone, nothing is kept together; give the first and the last of several layers"),
        (NETWORK, (0, "in"), "k: 'in' is a name, layers of a network have none; write 0 to 3"),
    ],
)
def test_a_run_that_is_none(known: Known, ends: tuple[IndexOrName, IndexOrName], message: str) -> None:
    """Out of range, unknown, ambiguous, backwards, of one layer."""
    with pytest.raises(PartitionError) as refusal:
        read_constraints([("k", ends)], [], known)
    assert str(refusal.value) == message


@pytest.mark.parametrize("device", [2, "cpu:2", "cuda:0"])
def test_a_device_that_is_not_there(device: IndexOrName) -> None:
    """What there is, is said."""
    with pytest.raises(PartitionError, match=rf"p: there is no device '?{device}'?; write 0 to 1, or a name such as"):
        read_constraints([], [("p", (0, 0), device)], TABLE)


def test_one_stage_on_two_devices() -> None:
    """Pins of one run, or of runs that are kept together."""
    with pytest.raises(
        PartitionError, match="q: layers 0-1, kept in one stage, cannot be on cpu:1 and, by p, on cpu:0"
    ):
        read_constraints([("k", (0, 1))], [("p", (0, 0), 0), ("q", (1, 1), 1)], NETWORK)
    with pytest.raises(PartitionError, match="q: layers 0-3"):
        read_constraints([], [("p", (0, 2), 0), ("q", (2, 3), 1)], NETWORK)
