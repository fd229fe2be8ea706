"""docs/walkthrough.md cannot drift: its arithmetic is done again, and every figure of the tool is asked of the tool."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from partition.config import load_config
from partition.plan import Candidate, Comparison, Search, compare_with
from partition.plan.noise_break_even import noise_break_even
from partition.units import format_bytes, format_seconds

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/walkthrough.md").read_text(encoding="utf-8")
CONFIGS = ("recommender", "wide_deep_24gb", "unlike_devices")
CLOSE = 0.03
"""How far the arithmetic may be from the tool."""


class Row(NamedTuple):
    """A line of a table: what it is, how it is reckoned, the result, and what the tool says."""

    what: str
    arithmetic: str
    by_hand: str
    tool: str


class Case(NamedTuple):
    """An experiment with its comparison."""

    search: Search
    comparison: Comparison

    def candidate(self, name: str) -> Candidate:
        found = self.comparison.candidate(name)
        assert found is not None, name
        return found


@pytest.fixture(scope="module", params=CONFIGS)
def case(request: pytest.FixtureRequest) -> tuple[str, Case]:
    search = Search(load_config(str(ROOT / f"configs/{request.param}.yaml")))
    return request.param, Case(search, compare_with(search))


def section(name: str) -> str:
    (found,) = re.findall(rf"^## [^\n]*configs/{name}\.yaml[^\n]*\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(name: str) -> Iterator[Row]:
    for line in section(name).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] != "what" and set(cells[0]) != {"-"}:
            yield Row(*cells)


def evaluate(arithmetic: str) -> float:
    """The value of an expression of numbers and + - * / ^ alone."""
    text = arithmetic.replace("\N{MULTIPLICATION SIGN}", "*").replace("^", "**").replace(",", "")
    assert re.fullmatch(r"[0-9.e+*/() -]+", text), arithmetic
    return float(eval(text, {"__builtins__": {}}))


def count(value: float) -> str:
    return f"{value:,.0f}"


def rough_count(value: float) -> str:
    return f"{value:.2e}"


def step(name: str) -> Callable[[Case], float]:
    def of(case: Case) -> float:
        predicted = case.candidate(name).predicted
        assert predicted is not None
        return predicted.step_s

    return of


def peak(name: str) -> Callable[[Case], float]:
    def of(case: Case) -> float:
        predicted = case.candidate(name).predicted
        assert predicted is not None
        return max(predicted.peak_bytes)

    return of


def part(name: str, *parts: str) -> Callable[[Case], float]:
    return lambda case: sum(getattr(case.candidate(name).stages[0].memory, f"{one}_bytes") for one in parts)


def parameters(case: Case) -> float:
    return sum(layer.parameter_elements for layer in case.search.network.layers)


def floor(case: Case) -> float:
    """The operators of the minibatch on all devices at their best rates; the certificate's bound is above it."""
    search, certificate = case.search, case.comparison.certificate
    least_s = search.costs.least_s(search.minibatch_size, search.cluster.devices)
    assert certificate is not None
    assert least_s <= certificate.lower_bound_s
    return least_s


def even_noise(shrunk: str, exact: str) -> Callable[[Case], float]:
    def of(case: Case) -> float:
        even = noise_break_even(case.candidate(shrunk), case.candidate(exact)).even_at
        assert even is not None
        return even

    return of


def room(index: int) -> Callable[[Case], float]:
    return lambda case: case.search.cluster.devices[index].memory_bytes


STATE = ("parameters", "gradients", "optimizer")
FIGURES: dict[str, dict[str, tuple[Callable[[float], str], Callable[[Case], float]]]] = {
    "recommender": {
        "parameters": (count, parameters),
        "parameters, gradients, two moments": (format_bytes, part("whole", *STATE)),
        "kept outputs, logits and their gradient": (format_bytes, part("whole", "activations")),
        "inputs and targets": (format_bytes, part("whole", "data")),
        "`whole` in all": (format_bytes, peak("whole")),
        "allocatable": (format_bytes, room(0)),
        "`accumulate-64` in all": (format_bytes, peak("accumulate-64")),
        "`accumulate-64`, a step": (format_seconds, step("accumulate-64")),
        "four devices at their peak": (format_seconds, floor),
        "`data_parallel-4x1` in all": (format_bytes, peak("data_parallel-4x1")),
        "`data_parallel-4x1`, a step": (format_seconds, step("data_parallel-4x1")),
        "`sharded-4`, a step": (format_seconds, step("sharded-4")),
    },
    "wide_deep_24gb": {
        "parameters": (count, parameters),
        "parameters, gradients, momentum": (format_bytes, part("whole", *STATE)),
        "kept inputs of GELU, gradients": (format_bytes, part("whole", "activations")),
        "`whole` in all": (format_bytes, peak("whole")),
        "allocatable": (format_bytes, room(0)),
        "`accumulate-64` in all": (format_bytes, peak("accumulate-64")),
        "arithmetic alone": (format_seconds, floor),
        "`accumulate-64`, a step": (format_seconds, step("accumulate-64")),
        "`shrink-16384`, a step": (format_seconds, step("shrink-16384")),
        "noise at which both are even": (rough_count, even_noise("shrink-16384", "accumulate-64")),
    },
    "unlike_devices": {
        "parameters": (count, parameters),
        "parameters, gradients, two moments": (format_bytes, part("whole@cuda:0", *STATE)),
        "kept inputs of SiLU, gradients": (format_bytes, part("whole@cuda:0", "activations")),
        "`whole@cuda:0` in all": (format_bytes, peak("whole@cuda:0")),
        "allocatable on the A100-SXM-80GB": (format_bytes, room(0)),
        "allocatable on an A100-PCIe-40GB": (format_bytes, room(1)),
        "allocatable on the L4": (format_bytes, room(3)),
        "all devices at their peak": (format_seconds, floor),
        "`accumulate-64@cuda:0`, a step": (format_seconds, step("accumulate-64@cuda:0")),
        "`pipeline-4x64-gpipe`, a step": (format_seconds, step("pipeline-4x64-gpipe")),
    },
}


def test_every_figure_of_the_tool_is_what_it_says_today(case: tuple[str, Case]) -> None:
    name, of = case
    expected = {what: say(value(of)) for what, (say, value) in FIGURES[name].items()}
    assert {row.what: row.tool for row in rows(name)} == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_arithmetic_gives_what_stands_beside_it(name: str) -> None:
    for row in rows(name):
        say = FIGURES[name][row.what][0]
        assert row.by_hand == say(evaluate(row.arithmetic)), row


def test_arithmetic_comes_close_to_the_tool(case: tuple[str, Case]) -> None:
    name, of = case
    for row in rows(name):
        assert evaluate(row.arithmetic) == pytest.approx(FIGURES[name][row.what][1](of), rel=CLOSE), row


def test_figures_in_the_text_are_the_tools(case: tuple[str, Case]) -> None:
    name, of = case
    words, weights = section(name), [layer.weight_elements for layer in of.search.network.layers]
    assert f"{sum(weights):,} of" in " ".join(words.split())
    assert f"{weights[0]:,} in the first layer" in words
    if name != "unlike_devices":
        return
    devices, hidden = of.search.cluster.devices, of.search.costs.stage(1, 1)
    rows = hidden.microbatch(of.search.minibatch_size)
    a100_s, l4_s = (rows.forward.seconds(one) + rows.backward.seconds(one) for one in (devices[1], devices[3]))
    bytes_of_layer = sum(hidden.static_bytes(1).values())
    assert [device.memory_bytes // bytes_of_layer for device in devices] == [12, 5, 5, 3]
    for figure in (
        f"{weights[1]:,} weights, {weights[1] * 16 / 2**30:.2f} GiB",
        f"{sum(device.memory_bytes for device in devices) / 2**30:.0f} GiB together",
        f"{format_seconds(a100_s)} on an A100",
        f"{format_seconds(l4_s)} on the L4",
        f"the bottleneck: {format_seconds(4 * a100_s)}",
        f"{format_seconds(floor(of))} would be the least",
    ):
        assert figure in " ".join(words.split())


def test_the_choice_is_named(case: tuple[str, Case]) -> None:
    name, of = case
    assert of.comparison.chosen is not None
    assert f"chooses `{of.comparison.chosen.name}`" in " ".join(section(name).split())
