"""The tree of a text: places, repeated keys, aliases, and texts made to hurt."""

import time
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partition.config.nodes import Node
from partition.config.yaml_reader import read_yaml
from partition.errors import ConfigError


def plain(node: Node) -> object:
    if isinstance(node.value, Mapping):
        return {key: plain(child) for key, child in node.value.items()}
    return [plain(child) for child in node.value] if isinstance(node.value, tuple) else node.value


def read(text: str) -> object:
    document = read_yaml(text, file="f")
    assert document.problems == []
    return plain(document.root)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, file="f")
    assert str(caught.value).isprintable()
    return str(caught.value)


def walk(node: Node) -> list[tuple[str, int | None]]:
    below = node.value.values() if isinstance(node.value, Mapping) else node.value
    children = below if isinstance(node.value, Mapping | tuple) else ()
    assert not isinstance(children, str)
    return [(node.path, node.line), *(place for child in children or () for place in walk(child))]  # type: ignore[union-attr]


def test_values_of_every_kind() -> None:
    text = "a: [1, 1e-3, no, 'no', null]\nb:\n  c: |\n    two\n    lines\n  d: {e: true}\n"
    assert read(text) == {"a": [1, 1e-3, "no", "no", None], "b": {"c": "two\nlines\n", "d": {"e": True}}}


def test_every_value_knows_its_line_and_its_keys() -> None:
    text = "# comment\na:\n  b: 1\n  c:\n    - x\n    - y: 2\n"
    root = read_yaml(text, file="f").root
    assert walk(root)[1:] == [("a", 2), ("a.b", 3), ("a.c", 4), ("a.c.0", 5), ("a.c.1", 6), ("a.c.1.y", 6)]


def test_a_repeated_key_is_a_problem_and_the_first_stays() -> None:
    document = read_yaml("a: 1\nb: 2\na: 3\n", file="f")
    assert plain(document.root) == {"a": 1, "b": 2}
    assert list(map(str, document.problems)) == ["f:3: a: appears twice, first on line 1; keep one of them"]


def test_an_alias_stands_at_its_own_path_and_the_line_of_its_anchor() -> None:
    root = read_yaml("a: &x\n  b: 1\nc: *x\n", file="f").root
    assert plain(root) == {"a": {"b": 1}, "c": {"b": 1}}
    assert walk(root)[-1] == ("c.b", 2)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "\ufeff"])
def test_nothing_is_null(text: str) -> None:
    assert read(text.removeprefix("\ufeff")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\nb: 3", "f:2: not valid YAML at column 2: while parsing a flow sequence, expected ',' or ']'"),
        ("a:\n\tb: 1", "f:2: not valid YAML at column 1: a tab; indent with spaces"),
        ("a: b: c", "f:1: not valid YAML at column 5: a colon where no key may stand"),
        ("a: 'b", "f:1: not valid YAML at column 6: while scanning a quoted scalar"),
        ("a: 1\n---\nb: 2", "f:2: a second document starts here"),
        ("a: \x07", r"f:1: the character '\x07' is not allowed in YAML"),
        ("? [a]\n: 1", "f:1: a key must be a plain word"),
        ("a: *b", "f:1: a: the alias 'b' stands for nothing"),
        ("a: &b [*b]", "f:1: a.0: the alias 'b' stands for nothing"),
        ('a: "\\UFFFFFFFF"', "f:1: not valid YAML: a number too large"),
        ("%YAML " + "1" * 5000 + ".1\n---\na", "f:1: not valid YAML: a number too large"),
        ("%YAML 2.0\n---\na", "f:1: not valid YAML at column 1: found incompatible YAML document"),
    ],
)
def test_what_is_not_yaml_is_refused_with_line_and_column(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_tags_run_no_code_and_are_named() -> None:
    document = read_yaml("a: !!python/object/apply:os.system [x]\nb: !!int '3'\n", file="f")
    assert [problem.key for problem in document.problems] == ["a", "b"]
    assert "python/object/apply:os.system" in document.problems[0].message


def test_half_a_surrogate_pair_is_a_problem() -> None:
    assert [problem.key for problem in read_yaml('a: "\\ud800"', file="f").problems] == ["a"]


LETTERS = "abcdefghijklmnop"
BILLION = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in pairwise(LETTERS)
)
LADDER = "a0: &a0 x\n" + "".join(f"a{i}: &a{i} {'[' * 20}*a{i - 1}{']' * 20}\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 500_000, "nested more than 50 deep"),
        ("- " * 500_000, "nested more than 50 deep"),
        ("{a: " * 200_000, "nested more than 50 deep"),
        ("".join(" " * i + "a:\n" for i in range(1000)), "nested more than 50 deep"),
        (LADDER, "nested more than 50 deep"),
        (BILLION, "more than 20000 keys and values"),
        ("[" + "1," * 500_000 + "]", "more than 20000 keys and values"),
        ("? " * 500_000, "a key must be a plain word"),
    ],
    ids=["lists", "dashes", "mappings", "indented", "alias ladder", "billion laughs", "long list", "keys"],
)
def test_a_text_made_to_hurt_is_refused_quickly(text: str, message: str) -> None:
    start_s = time.perf_counter()
    assert message in refusal(text)
    assert time.perf_counter() - start_s < 10


INDICATORS = (
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!!int ",
    "!",
    "|\n",
    ">\n",
    '"',
    "'",
    "? ",
    ",",
    "#",
    "<<: ",
)
ODDITIES = ("\\x", '"\\U99999999"', '"\\ud800"', "%YAML 1.2\n", "---\n", "...\n", "\t", "\n", "\r", "\x85", "\u2028")
FRAGMENTS = st.sampled_from([*INDICATORS, *ODDITIES, ".nan", "a", "a: 1\n", "  "])


@settings(deadline=None)
@given(st.lists(FRAGMENTS | st.text(max_size=3), max_size=40).map("".join))
def test_any_text_is_read_or_refused_in_one_line_each(text: str) -> None:
    try:
        problems = read_yaml(text, file="f").problems
    except ConfigError as error:
        problems = list(error.problems)
    assert all(str(problem).isprintable() for problem in problems)
