"""How values and keys are shown in a message: short, printable, on one line."""

from hypothesis import given
from hypothesis import strategies as st

from partition.config.nodes import Node, join_path, quote


def node(value: object, text: str = "") -> Node:
    return Node(file="f.yaml", line=3, path="a.b", text=text, value=value)  # type: ignore[arg-type]


def test_a_problem_names_its_place() -> None:
    assert str(node(1).problem("is wrong")) == "f.yaml:3: a.b: is wrong"
    assert str(node({}).problem_below("c", "is missing")) == "f.yaml:3: a.b.c: is missing"


def test_values_are_shown_as_they_were_written() -> None:
    assert node(0.001, text="1e-3").shown == "1e-3"
    assert node("no", text="no").shown == "'no'"
    assert node(()).shown == "a list"
    assert node({}).shown == "a mapping"
    assert node(None).shown == "nothing"
    assert len(node("x" * 1000).shown) == 60


@given(st.text())
def test_paths_and_quotes_are_printable_and_short(key: str) -> None:
    assert quote(key).isprintable()
    assert len(quote(key)) <= 60
    assert join_path("", key).isprintable()
    assert len(join_path("a", key)) <= 62
