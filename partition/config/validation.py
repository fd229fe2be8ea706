"""The schema and the conflicts between keys, asked about a tree; every refusal told in words with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from partition.config.keys import SCHEMA_NAMES
from partition.config.messages import describe_missing, describe_wrong
from partition.config.nodes import Node, join_path
from partition.config.schema import (
    BlockConfig,
    ClusterConfig,
    DataConfig,
    DeviceConfig,
    LinksConfig,
    ModelConfig,
    OptimizerConfig,
    PrecisionConfig,
    ResidualConfig,
    TrainingConfig,
)
from partition.config.section import CONFLICT, Section
from partition.errors import Problem

_Keys = tuple[int | str, ...]

_WITH_CONFLICTS: dict[_Keys, type[Section]] = {
    ("model",): ModelConfig,
    ("precision",): PrecisionConfig,
    ("data",): DataConfig,
    ("training",): TrainingConfig,
    ("optimizer",): OptimizerConfig,
    ("cluster",): ClusterConfig,
    ("cluster", "links"): LinksConfig,
}


_ABSENT = object()


class _Refusal(NamedTuple):
    """What the schema refuses: the keys to it, the kind of error, the figures that belong to it."""

    keys: _Keys
    kind: str
    context: Mapping[str, Any]


Described = TypeVar("Described", bound=Section)


def validate(root: Node, kind: type[Described], **values_besides: str) -> tuple[Described | None, list[Problem]]:
    """What a tree in the schema's shape describes, or None, and all that is wrong with it."""
    values = {**values_besides, **_plain_mapping(root)}
    refusals = [_Refusal(keys, CONFLICT, {"message": message}) for keys, message in _conflicts(values, kind)]
    config = None
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        found = [_Refusal(each["loc"], each["type"], each.get("ctx", {})) for each in details]
        refusals = [refusal for refusal in found if not _is_echo(refusal, values)] + refusals
    return config, [_problem(root, refusal) for refusal in refusals]


def _is_echo(refusal: _Refusal, values: Mapping[str, Any]) -> bool:
    """Whether something else tells it, so that it would be told twice."""
    # Conflicts were all asked for; a list of wrong entries is not empty; what is not in the file follows what is.
    value = _value_at(values, refusal.keys)
    is_filled_in = value is _ABSENT and refusal.kind != "missing" and not _is_made_of_one(values, refusal.keys)
    return is_filled_in or refusal.kind == CONFLICT or (refusal.kind == "too_short" and value != ())


def _plain_mapping(root: Node) -> dict[str, Any]:
    plain = _plain(root)
    return plain if isinstance(plain, dict) else {}


def _plain(node: Node) -> Any:
    if isinstance(node.value, Mapping):
        return {key: _plain(child) for key, child in node.value.items()}
    return tuple(map(_plain, node.value)) if isinstance(node.value, tuple) else node.value


def _conflicts(values: Mapping[str, Any], kind: type[Section]) -> Iterator[tuple[_Keys, str]]:
    for place, section, given in _sections(values, kind):
        for key, message in section.conflicts(given):
            yield (*place, *(int(part) if part.isdecimal() else part for part in key.split("."))), message


def _sections(
    values: Mapping[str, Any], kind: type[Section]
) -> Iterator[tuple[_Keys, type[Section], Mapping[str, Any]]]:
    """Every section that is there and can have conflicts, with the keys to it and what was given for it."""
    yield (), kind, values
    for place, section in _WITH_CONFLICTS.items():
        given = _value_at(values, place)
        if isinstance(given, Mapping):
            yield place, section, given
    blocks = _value_at(values, ("model", "blocks"))
    for index, block in enumerate(blocks if isinstance(blocks, tuple) else ()):
        if isinstance(block, Mapping):
            yield ("model", "blocks", index), BlockConfig, block
            if isinstance(block.get("residual"), Mapping):
                yield ("model", "blocks", index, "residual"), ResidualConfig, block["residual"]
    devices = _value_at(values, ("cluster", "devices"))
    for index, device in enumerate(devices if isinstance(devices, tuple) else ()):
        if isinstance(device, Mapping):
            yield ("cluster", "devices", index), DeviceConfig, device


def _value_at(values: Any, keys: _Keys) -> Any:
    for key in keys:
        if key not in (
            values if isinstance(values, Mapping) else range(len(values)) if isinstance(values, tuple) else ()
        ):
            return _ABSENT
        values = values[key]
    return values


def _is_made_of_one(values: Mapping[str, Any], keys: _Keys) -> bool:
    """Whether the keys lead into a single value, of which the schema makes a pair: a layer alone is a run."""
    outer = (_value_at(values, keys[:length]) for length in range(1, len(keys)))
    return any(value is not _ABSENT and not isinstance(value, Mapping | tuple) for value in outer)


def _problem(root: Node, refusal: _Refusal) -> Problem:
    """The refusal in words, at the value it is about, or where the missing one belongs."""
    node = root
    for position, key in enumerate(refusal.keys):
        child = _child(node, key)
        if child is None:
            return _problem_below(node, [str(key) for key in refusal.keys[position:]], refusal)
        node = child
    return node.problem(_message(node, refusal))


def _problem_below(node: Node, keys: list[str], refusal: _Refusal) -> Problem:
    path = node.path
    for key in keys:
        path = join_path(path, key)
    if refusal.kind == CONFLICT:
        return node.problem(_message(node, refusal))._replace(key=path)
    if refusal.kind == "missing" and isinstance(node.value, Mapping):
        return node.problem(describe_missing(path))._replace(key=path)
    return node.problem(_message(node, refusal))


def _child(node: Node, key: int | str) -> Node | None:
    if isinstance(node.value, Mapping):
        # The schema speaks of memory_bytes, a conflict of memory: the tree holds it under the schema's name.
        return node.value.get(str(key), node.value.get(SCHEMA_NAMES.get(str(key), "")))
    if isinstance(node.value, tuple) and isinstance(key, int) and key < len(node.value):
        return node.value[key]
    return None


def _message(node: Node, refusal: _Refusal) -> str:
    if refusal.kind == CONFLICT:
        return str(refusal.context["message"])
    return describe_wrong(node, refusal.kind, refusal.context)
