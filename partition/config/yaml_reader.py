"""YAML text to a tree of values that know their lines; hostile text costs little and never raises anything else.

PyYAML scans and parses; the tree is built here from its events, because its own composer recurses without limit,
expands aliases without limit and lets the last of two equal keys win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from yaml.reader import ReaderError

from partition.config.nodes import Node, join_path, quote
from partition.config.scalars import read_plain_scalar
from partition.errors import ConfigError, Problem

_DEPTH_LIMIT = 50
_NODE_LIMIT = 20_000

_ADVICE = {
    "mapping values are not allowed here": "a colon where no key may stand; check the indentation, or quote the text",
    "found character '\\t' that cannot start any token": "a tab; indent with spaces",
    "could not find expected ':'": "a key without its colon",
}


class Document(NamedTuple):
    """What was read, and the problems found on the way (repeated keys, tags)."""

    root: Node
    problems: list[Problem]


def read_yaml(text: str, *, file: str, path: str = "", has_lines: bool = True) -> Document:
    """The tree of a text in YAML 1.2's sense of scalars; an empty text is a null.

    `file` and `path` name the place in messages, `has_lines` says whether line numbers mean something there.
    Raises ConfigError where the text is not YAML, or is nested or long beyond reason.
    """
    try:
        builder = _Builder(loader=yaml.SafeLoader(text), file=file, has_lines=has_lines)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the character {quote(text[error.position])} is not allowed in YAML"
        raise ConfigError([Problem(file, line if has_lines else None, path, message)]) from None
    try:
        return Document(builder.read_document(path), builder.problems)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        builder.refuse(mark.line + 1 if mark else None, path, _explain(error))
    except (ValueError, OverflowError):
        # PyYAML converts the digits of escapes and of %YAML directives without looking at them.
        builder.refuse(builder.loader.line + 1, path, "not valid YAML: a number too large in an escape or a directive")


@dataclass(kw_only=True)
class _Builder:
    loader: yaml.SafeLoader
    file: str
    has_lines: bool
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)
    num_nodes: int = 0

    def refuse(self, line: int | None, path: str, message: str) -> NoReturn:
        problem = Problem(self.file, line if self.has_lines else None, path, message)
        raise ConfigError([*self.problems, problem])

    def next_event(self) -> Event:
        event: Event = self.loader.get_event()  # type: ignore[no-untyped-call]
        return event

    def read_document(self, path: str) -> Node:
        self.expect(StreamStartEvent)
        start = self.next_event()
        if isinstance(start, StreamEndEvent):
            return Node(file=self.file, line=1 if self.has_lines else None, path=path, text="", value=None)
        root = self.read_node(self.next_event(), path, depth=0)
        self.next_event()
        end = self.next_event()
        if isinstance(end, DocumentStartEvent):
            self.refuse(_line(end), "", "a second document starts here; keep one to a file")
        return root

    def expect(self, kind: type[Event]) -> None:
        event = self.next_event()
        assert isinstance(event, kind), event

    def read_node(self, event: Event, path: str, depth: int, line: int | None = None) -> Node:
        line = _line(event) if line is None else line
        if isinstance(event, AliasEvent):
            return self.read_alias(event, path, depth, line)
        self.count_node(line, depth)
        node = self.read_content(event, path, depth, line)
        if isinstance(event, NodeEvent) and event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def read_content(self, event: Event, path: str, depth: int, line: int) -> Node:
        place = Node(file=self.file, line=line if self.has_lines else None, path=path, text="", value=None)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            self.problems.append(place.problem(f"the tag {quote(str(tag))} is not available; write the plain value"))
        if isinstance(event, MappingStartEvent):
            return place.with_value(self.read_mapping(path, depth))
        if isinstance(event, SequenceStartEvent):
            return place.with_value(self.read_sequence(path, depth))
        assert isinstance(event, ScalarEvent), event
        if any("\ud800" <= letter <= "\udfff" for letter in event.value):
            self.problems.append(place.problem("half of a surrogate pair is no character; write the character itself"))
        value = read_plain_scalar(event.value) if event.style is None and tag is None else event.value
        return replace(place, text=event.value, value=value)

    def read_sequence(self, path: str, depth: int) -> tuple[Node, ...]:
        items: list[Node] = []
        while not isinstance(event := self.next_event(), SequenceEndEvent):
            items.append(self.read_node(event, join_path(path, str(len(items))), depth + 1))
        return tuple(items)

    def read_mapping(self, path: str, depth: int) -> Mapping[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := self.next_event(), MappingEndEvent):
            key_line = _line(event)
            key = self.read_key(event, path, depth, key_line)
            node = self.read_node(self.next_event(), join_path(path, key), depth + 1, key_line)
            if key in entries:
                first = f"first on line {entries[key].line}" if self.has_lines else "within one value"
                self.problems.append(node.problem(f"appears twice, {first}; keep one of them"))
            entries.setdefault(key, node)
        return entries

    def read_key(self, event: Event, path: str, depth: int, line: int) -> str:
        self.count_node(line, depth)
        if not isinstance(event, ScalarEvent):
            self.refuse(line, path, "a key must be a plain word, not a list, a mapping or an alias")
        key: str = event.value
        return key

    def read_alias(self, event: AliasEvent, path: str, depth: int, line: int) -> Node:
        anchor = event.anchor or ""
        target = self.anchors.get(anchor)
        if target is None:
            self.refuse(line, path, f"the alias {quote(anchor)} stands for nothing defined before it")
        return self.copy_below(target, path, depth)

    def copy_below(self, node: Node, path: str, depth: int) -> Node:
        """The node as if written at the path; every copy counts, so a few lines cannot stand for billions of values."""
        self.count_node(node.line or 1, depth)
        value = node.value
        if isinstance(value, Mapping):
            value = {key: self.copy_below(child, join_path(path, key), depth + 1) for key, child in value.items()}
        elif isinstance(value, tuple):
            value = tuple(self.copy_below(child, join_path(path, str(i)), depth + 1) for i, child in enumerate(value))
        return replace(node, path=path, value=value)

    def count_node(self, line: int, depth: int) -> None:
        self.num_nodes += 1
        if self.num_nodes > _NODE_LIMIT:
            self.refuse(line, "", f"more than {_NODE_LIMIT} keys and values, aliases expanded")
        if depth > _DEPTH_LIMIT:
            self.refuse(line, "", f"nested more than {_DEPTH_LIMIT} deep; an experiment needs 4")


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _explain(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f" at column {mark.column + 1}" if mark else ""
    problem = error.problem or error.context or "no more is known"
    context = f"{error.context}, " if error.context and error.problem and problem not in _ADVICE else ""
    return " ".join(f"not valid YAML{where}: {context}{_ADVICE.get(problem, problem)}".split())
