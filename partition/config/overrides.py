"""`key.path=value` from a command line, laid over the tree of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from partition.config.nodes import Node, join_path, quote
from partition.config.yaml_reader import read_yaml
from partition.errors import ConfigError, Problem

_LONGEST_PATH = 10

_RIVALS = {"training.epochs": "steps", "training.steps": "epochs"}
"""Of two keys that exclude each other, the one overridden replaces the one in the file."""


def apply_overrides(root: Node, overrides: Iterable[str], problems: list[Problem]) -> Node:
    """The tree with each override in its place, the last one winning; `null` removes a key.

    A list item is addressed by its index: `cluster.devices.0.memory=40 GiB`.
    """
    for override in overrides:
        try:
            keys, new = _read(override, problems)
            root = _place(root, keys, new, "")
        except ConfigError as error:
            problems.extend(error.problems)
    return root


def _read(override: str, problems: list[Problem]) -> tuple[list[str], Node]:
    """The keys and the value of an override; raises ConfigError if it cannot be read."""
    origin = f"override {quote(override)}"
    left, equals, text = override.partition("=")
    keys = [key.strip() for key in left.split(".")]
    if not equals or not all(keys) or len(keys) > _LONGEST_PATH:
        message = "write it key.path=value, for example training.minibatch_size=250"
        raise ConfigError([Problem(origin, None, "", message)])
    path = ""
    for key in keys:
        path = join_path(path, key)
    if not text.strip():
        message = "has no value; write one after the =, or null to remove the key"
        raise ConfigError([Problem(origin, None, path, message)])
    new, found = read_yaml(text, file=origin, path=path, has_lines=False)
    problems.extend(found)
    return keys, new


def _place(node: Node, keys: list[str], new: Node, path: str) -> Node:
    """The node with the new one below it at the keys."""
    if not keys:
        return new
    key, *rest = keys
    path = join_path(path, key)
    if isinstance(node.value, tuple):
        index = _index(node, len(node.value), key, new)
        changed = _place(node.value[index], rest, new, path)
        return node.with_value((*node.value[:index], changed, *node.value[index + 1 :]))
    if not isinstance(node.value, Mapping) and node.value is not None:
        raise ConfigError([new.problem(f"{node.path} is {node.shown}, which has no keys; override {node.path} itself")])
    entries = dict(node.value or {})
    if not rest and new.value is None:
        entries.pop(key, None)
        return node.with_value(entries)
    rival = _RIVALS.get(path)
    if rival in entries and entries[rival].line is not None:
        del entries[rival]
    # What is not there yet belongs, for messages, to the override that makes it.
    child = entries.get(key, Node(file=new.file, line=None, path=path, text="", value=None))
    entries[key] = _place(child, rest, new, path)
    return node.with_value(entries)


def _index(node: Node, length: int, key: str, new: Node) -> int:
    is_index = key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < length
    if not is_index:
        advice = f"give an index from 0 to {length - 1}" if length else "it is empty"
        message = f"{node.path} is a list, and {quote(key)} not in it; {advice}, or the whole: {node.path}=[...]"
        raise ConfigError([new.problem(message)])
    return int(key)
