"""docs/backward.md quotes the code as it is, and its outputs are what its commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from partition.ops import ACTIVATIONS, LOSSES
from scripts.make_backward_docs import (
    DOCUMENT,
    ROOT,
    Quote,
    docstring,
    is_quoted_rightly,
    named,
    outputs,
    prose,
    quotes,
    refreshed,
)

FIGURE = re.compile(r"\d[\d,.]* ?(?:bytes|[KMGT]iB|ms|%|GFLOP/s)|\d,\d{3}")
"""A number with a unit, or a long one."""


@pytest.fixture(scope="module")
def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def test_the_outputs_are_what_the_commands_print(text: str) -> None:
    """Where this fails: python -m scripts.make_backward_docs, and read what has changed."""
    assert refreshed(text) == text


def test_an_output_that_was_written_by_hand_is_replaced() -> None:
    block = "```python\nprint(1 + 1)\n```\n\n```text\n{}```\n"
    assert refreshed(block.format("3\n")) == block.format("2\n")


def test_every_formula_stands_in_the_docstring_it_is_quoted_from(text: str) -> None:
    found = list(quotes(text))
    assert len(found) > 40
    assert [quote for quote in found if not is_quoted_rightly(quote)] == []


@pytest.mark.parametrize(
    ("line", "is_right"),
    [
        ("| ∂x | `grad_x = grad_z W` | `affine_input_grad` in `partition/ops/affine.py` |", True),
        ("| ∂x | `grad_x = W grad_z` | `affine_input_grad` in `partition/ops/affine.py` |", False),
        ("| ∂x | `grad_x = grad_z W` | `affine_output_grad` in `partition/ops/affine.py` |", False),
        ("| ∂x | `grad_x = grad_z W` | `affine_input_grad` in `partition/ops/alpine.py` |", False),
        ("| n | `\\|grad_z_n\\|^2 (\\|x_n\\|^2 + 1)` | `affine_example_norms` in `partition/ops/norms.py` |", True),
        ("| s | `s = lambda/2` | `HandWrittenModule.penalty` in `partition/runtime/module.py` |", True),
        ("| s | `s = lambda/2` | `HandWrittenModule.forward` in `partition/runtime/module.py` |", False),
        ("| n | `n = x̂ * weight + bias` | `partition/ops/normalisation.py` |", True),
    ],
)
def test_a_wrong_quotation_is_found(line: str, is_right: bool) -> None:
    """Without this the test above might not be able to fail."""
    (quote,) = quotes(line)
    assert is_quoted_rightly(quote) is is_right


def test_everything_that_is_named_with_its_file_is_there(text: str) -> None:
    found = list(named(text))
    assert ("Chain.keeps", "partition/graph/chain.py") in found
    assert [one for one in found if docstring(*one) is None] == []


def test_figures_in_the_prose_are_taken_from_an_output(text: str) -> None:
    assert FIGURE.findall("It takes 1,234 bytes, 5 ms and 3.5 MiB.") == ["1,234 bytes", "5 ms", "3.5 MiB"]
    assert [figure for figure in FIGURE.findall(prose(text)) if figure not in outputs(text)] == []


def test_links_lead_somewhere(text: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert "backward/bias.svg" in links
    assert [link for link in links if not (DOCUMENT.parent / link).is_file()] == []


def test_the_picture_is_that_of_the_network_with_a_bias() -> None:
    picture = (DOCUMENT.parent / "backward" / "bias.svg").read_text(encoding="utf-8")
    assert "book: backward graph, 2 layers" in picture
    assert "∂b0" in picture


def test_every_activation_and_loss_has_its_formula(text: str) -> None:
    """A new one is not left out."""
    listed, quoted = outputs(text), {(quote.name, quote.path) for quote in quotes(text)}
    for name in ACTIVATIONS:
        assert f"{name}, keeps" in listed
    names = {name for name, _ in quoted}
    for loss in LOSSES.values():
        assert {loss.forward.__name__, loss.hessian.__name__} <= names
    paths = {Path(path).name for _, path in quoted}
    assert {"affine.py", "normalisation.py", "gate.py", "norms.py", "second.py", "pairs.py", "functional.py"} <= paths


def test_quotes_are_read_out_of_every_cell() -> None:
    row = "| c | `a`, `b` and `c` | `f` in `partition/ops/gate.py` |"
    assert list(quotes(row)) == [Quote(words, "f", "partition/ops/gate.py") for words in "abc"]
    assert (ROOT / "partition/ops/gate.py").is_file()
