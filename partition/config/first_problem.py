"""What is first wrong with a document that a schema refuses, in words: of the files that the program writes itself."""

from __future__ import annotations

import json

from pydantic import ValidationError

_BOUNDS = {
    "greater_than": ("small", "gt", "it must be more than"),
    "greater_than_equal": ("small", "ge", "the least is"),
    "less_than": ("large", "lt", "it must be less than"),
    "less_than_equal": ("large", "le", "the most is"),
}
_MOST_LETTERS = 80


def first_problem(error: ValidationError, within: str = "") -> str:
    """The first problem with its place, `within` the document where only a part of it was read."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, ([within] if within else []) + list(first["loc"])))
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    if kind == "missing":
        problem = "is missing"
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        problem = "is not known"
    elif kind == "value_error":
        problem = str(context["error"])
    elif isinstance(value, dict | list):
        problem = "is empty" if not value else f"is {'an object' if isinstance(value, dict) else 'a list'}"
    elif kind in _BOUNDS:
        size, key, words = _BOUNDS[kind]
        problem = f"{json.dumps(value)} is too {size}; {words} {context[key]:g}"
    else:
        problem = f"{short(json.dumps(value, default=str))} is not valid here"
    return f"{short(where) or 'the whole'}: {problem}"


def short(text: str) -> str:
    """On one line, and not longer than a person reads."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."
