from __future__ import annotations

import pytest

from partition.costs.profile import Curve, LinkCurve, Messages
from partition.runtime.in_pipeline import _Cost, _least_latency, _with


def messages() -> Messages:
    flat = Curve(sizes=(8,), seconds=(0.0,))
    link = Curve(sizes=(8, 100, 1000, 9000), seconds=(1.0, 2.0, 3.0, 4.0))
    links = (LinkCurve(source=0, destination=1, curve=link), LinkCurve(source=1, destination=0, curve=link))
    return Messages(send=flat, receive=flat, links=links, sums=flat, share_s=0.0)


def cost(num_bytes: int, latency_s: float) -> _Cost:
    return _Cost(num_bytes=num_bytes, send_s=num_bytes / 100, receive_s=num_bytes / 10, latency_s=latency_s)


def test_latency_goes_along_lines_between_sizes_and_no_further() -> None:
    found = _with(messages(), [cost(100, 0.5), cost(1000, 0.25)])
    assert [link.curve.seconds for link in found.links] == [(1.5, 2.5, 3.25, 4.25)] * 2
    assert [found.send.at(size) for size in (8, 100, 550, 1000)] == [1.0, 1.0, 5.5, 10.0]
    assert [found.receive.at(size) for size in (8, 100, 1000)] == [10.0, 10.0, 100.0]


def test_a_network_that_makes_no_pipeline_leaves_messages_as_they_are() -> None:
    assert _with(messages(), []) == messages()


@pytest.mark.parametrize(
    ("measured_s", "expected_s"),
    [(0.5, 0.0), (1.0, 0.0), (1.002, 0.002), (1.05, 0.05), (99.0, 98.0)],
)
def test_latency_is_the_least_that_explains_the_step(measured_s: float, expected_s: float) -> None:
    found_s = _least_latency(lambda latency_s: 1.0 + max(0.0, latency_s), measured_s)
    assert found_s == pytest.approx(expected_s, abs=1e-6 + 1e-4 * expected_s)


def test_latency_that_hides_behind_computing_is_found_where_it_shows() -> None:
    found_s = _least_latency(lambda latency_s: max(1.0, 0.98 + latency_s), 1.01)
    assert found_s == pytest.approx(0.03, abs=1e-6)
