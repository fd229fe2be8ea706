"""From the ways in which a file may say a thing to the one shape that the schema knows, places kept for messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from partition.config.cluster import LARGEST_DEVICE_COUNT
from partition.config.data import PATH_KEYS
from partition.config.keys import SCHEMA_NAMES
from partition.config.messages import describe_missing, describe_not_whole, describe_out_of_range
from partition.config.model import LARGEST_DEPTH, LARGEST_WIDTH
from partition.config.nodes import Node, join_path
from partition.errors import PartitionError, Problem
from partition.units import parse_bytes, parse_bytes_per_s, parse_flop_per_s, parse_seconds

_Change = Callable[[Node], Node]

_PARSERS: dict[str, Callable[[str | int | float], float]] = {
    "memory": parse_bytes,
    "context": parse_bytes,
    "compute": parse_flop_per_s,
    "memory_bandwidth": parse_bytes_per_s,
    "bandwidth": parse_bytes_per_s,
    "latency": parse_seconds,
    "timeout": parse_seconds,
}

_PLANNER_LISTS = ("strategies", "schedules", "num_stages", "num_microbatches", "minibatch_sizes")


def normalise(root: Node, problems: list[Problem], *, folder: str = "") -> Node:
    """The tree in the schema's shape; what cannot be brought into it is a problem and stays as it is.

    Quantities become base units, `{width, depth}` a list, devices a list with one entry each, flat links those within
    a node, single values of lists a list, and paths absolute: those of the file start in its `folder`.
    """

    def widths(node: Node) -> Node:
        return _repeat_width(node, problems)

    def devices(node: Node) -> Node:
        return _list_devices(node, problems)

    def links(node: Node) -> Node:
        return _nest_links(node, problems)

    def quantities(node: Node) -> Node:
        return _in_base_units(node, problems)

    def path(node: Node) -> Node:
        return _complete_path(node, folder)

    for section in ("training", "cluster"):
        root = _change_within(root, (section,), quantities)
    root = _change_within(root, ("model", "hidden_features"), widths)
    root = _change_within(root, ("cluster", "devices"), devices)
    root = _change_within(root, ("cluster", "links"), links)
    for keys in (*(("planner", key) for key in _PLANNER_LISTS), ("data", "target")):
        root = _change_within(root, keys, _wrap_in_list)
    root = _change_within(root, ("planner", "pinned"), lambda node: _wrap_in_list(node, Mapping))
    paths = (*(("data", key) for key in PATH_KEYS), ("planner", "costs"), ("planner", "noise"), ("model", "costs"))
    for keys in paths:
        root = _change_within(root, keys, path)
    return root


def _change_within(node: Node, keys: tuple[str, ...], change: _Change) -> Node:
    """The node with what stands below it at the keys, if anything does, changed."""
    if not keys:
        return change(node)
    if not isinstance(node.value, Mapping) or keys[0] not in node.value:
        return node
    child = _change_within(node.value[keys[0]], keys[1:], change)
    return node.with_value({**node.value, keys[0]: child})


def _complete_path(node: Node, folder: str) -> Node:
    """A path in a file is relative to the file's folder; one in an override to where the command is given."""
    if not isinstance(node.value, str) or not node.value:
        return node
    start = "" if node.line is None else folder
    return node.with_value(os.path.abspath(os.path.join(start, os.path.expanduser(node.value))))


def _wrap_in_list(node: Node, *kinds: type) -> Node:
    """A single value of a list as a list: a plain one, or one of these kinds."""
    is_single = isinstance(node.value, kinds) if kinds else not isinstance(node.value, tuple | Mapping)
    return node.with_value((node,)) if is_single else node


def _repeat_width(node: Node, problems: list[Problem]) -> Node:
    if not isinstance(node.value, Mapping):
        return node
    missing = [key for key in ("width", "depth") if key not in node.value]
    problems += [node.problem_below(key, describe_missing(join_path(node.path, key))) for key in missing]
    if missing:
        return node
    width = _whole_number(node.value["width"], 1, LARGEST_WIDTH, problems)
    depth = _whole_number(node.value["depth"], 0, LARGEST_DEPTH, problems)
    return node if width is None or depth is None else node.with_value((node.value["width"],) * depth)


def _list_devices(node: Node, problems: list[Problem]) -> Node:
    entries = node.value if isinstance(node.value, tuple) else (node,)
    if isinstance(node.value, tuple | Mapping):
        devices = [device for entry in entries for device in _repeat_device(entry, problems)]
        if len(devices) > LARGEST_DEVICE_COUNT:
            problems.append(node.problem(f"{len(devices)} devices in all are too many; the most is 1024"))
        return node.with_value(tuple(devices[:LARGEST_DEVICE_COUNT]))
    return node


def _repeat_device(entry: Node, problems: list[Problem]) -> tuple[Node, ...]:
    if not isinstance(entry.value, Mapping):
        return (entry,)
    keys = dict(entry.value)
    count_node = keys.pop("count", None)
    count = _whole_number(count_node, 1, LARGEST_DEVICE_COUNT, problems) if count_node else 1
    return (_in_base_units(entry.with_value(keys), problems),) * (count or 1)


def _nest_links(node: Node, problems: list[Problem]) -> Node:
    if not isinstance(node.value, Mapping):
        return node
    flat = {key: child for key, child in node.value.items() if key in ("bandwidth", "latency")}
    nested = {key: child for key, child in node.value.items() if key not in flat}
    if flat and nested:
        advice = "move bandwidth and latency below intra_node"
        problems.append(node.problem(f"holds {', '.join(flat)} beside {', '.join(nested)}; {advice}"))
    within = {key: _in_base_units(child, problems) for key, child in nested.items()}
    return node.with_value(within if nested else {"intra_node": _in_base_units(node, problems)} if flat else {})


def _in_base_units(section: Node, problems: list[Problem]) -> Node:
    """The section with its quantities as numbers, under the names that carry their unit."""
    if not isinstance(section.value, Mapping):
        return section
    changed = {}
    for key, child in section.value.items():
        node = _rates(child, problems) if key == "compute" else child
        if key in _PARSERS and key != "compute":
            node = _parse(child, _PARSERS[key], problems)
        changed[SCHEMA_NAMES.get(key, key)] = node
    return section.with_value(changed)


def _rates(node: Node, problems: list[Problem]) -> Node:
    """Pairs of number format and rate, of one figure for all formats or of a mapping."""
    figures = node.value if isinstance(node.value, Mapping) else {"default": node}
    pairs = [
        node.with_value((child.with_value(name), _parse(child, parse_flop_per_s, problems)))
        for name, child in sorted(figures.items())
    ]
    return node.with_value(tuple(pairs))


def _parse(node: Node, parser: Callable[[str | int | float], float], problems: list[Problem]) -> Node:
    if isinstance(node.value, tuple | Mapping) or node.value is None:
        problems.append(node.problem(f"{node.shown} is not a quantity; write a number with its unit"))
        return node
    try:
        return node.with_value(parser(node.value))
    except PartitionError as error:
        problems.append(node.problem(str(error)))
        return node


def _whole_number(node: Node, least: int, most: int, problems: list[Problem]) -> int | None:
    """The value if it is an integer within the limits, None (and a problem) if not."""
    value = node.value
    if not isinstance(value, int) or isinstance(value, bool):
        problems.append(node.problem(describe_not_whole(node)))
    elif value < least:
        problems.append(node.problem(describe_out_of_range(node, "greater_than_equal", least)))
    elif value > most:
        problems.append(node.problem(describe_out_of_range(node, "less_than_equal", most)))
    else:
        return value
    return None
