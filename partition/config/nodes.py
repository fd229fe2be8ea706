"""A value as it was written: where it stands, how it reads, what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from partition.errors import Problem

Scalar = None | bool | int | float | str

_LONGEST_SHOWN = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One value of a file or of an override, with its place for messages."""

    file: str
    """The file, or the override, that it comes from."""
    line: int | None
    """1-based; None for an override."""
    path: str
    """Dotted keys from the top, as written; list items by index."""
    text: str
    """A scalar's text as written; empty for lists and mappings."""
    value: Scalar | tuple[Node, ...] | Mapping[str, Node]

    def problem(self, message: str) -> Problem:
        """A problem with this value."""
        return Problem(self.file, self.line, self.path, message)

    def problem_below(self, key: str, message: str) -> Problem:
        """A problem with a key that this value lacks: it has no line of its own."""
        return Problem(self.file, self.line, join_path(self.path, key), message)

    def with_value(self, value: Scalar | tuple[Node, ...] | Mapping[str, Node]) -> Node:
        """The same place holding another value."""
        return replace(self, value=value)

    @property
    def shown(self) -> str:
        """The value for a message: short, on one line."""
        if isinstance(self.value, Mapping):
            return "a mapping"
        if isinstance(self.value, tuple):
            return "a list"
        if self.value is None:
            return "nothing"
        return quote(self.value) if isinstance(self.value, str) else shorten(self.text)


def join_path(path: str, key: str) -> str:
    """The dotted path of a key below a path; keys that would upset a message are quoted."""
    is_plain = 0 < len(key) <= _LONGEST_SHOWN and key.isprintable()
    shown = key if is_plain else quote(key)
    return f"{path}.{shown}" if path else shown


def quote(text: str) -> str:
    """Text in quotes, shortened, with everything unprintable escaped."""
    return shorten(repr(text[: 2 * _LONGEST_SHOWN]))


def shorten(text: str) -> str:
    """Text of at most 60 characters."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
