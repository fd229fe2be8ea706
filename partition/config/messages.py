"""What is wrong with a value, in words: the value as written, the limit, what to change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from partition.config.hints import suggest_word
from partition.config.nodes import Node
from partition.config.scalars import read_plain_scalar

_DEVICES = "{count: 4, kind: simulated, memory: 76 MiB}"

EXAMPLES = {
    "model": "{in_features: 784, hidden_features: [1024], out_features: 10}",
    "model.in_features": "784",
    "model.hidden_features": "[1024, 1024]",
    "model.hidden_features.width": "1024",
    "model.hidden_features.depth": "6",
    "model.blocks": "[{linear: 512}, {residual: {norm: layer_norm, hidden: 2048}, repeat: 4}]",
    "model.blocks.residual": "{norm: layer_norm, hidden: 2048}",
    "model.out_features": "10",
    "model.class_weights": "[1.0, 2.5]",
    "model.costs": "chain.csv",
    "model.microbatch_size": "32",
    "precision": "{parameters: float32, compute: float32}",
    "data": "{source: mnist5k}",
    "data.source": "mnist5k",
    "data.target": "price",
    "data.arguments": "{root: data, train: true}",
    "data.test_arguments": "{root: data, train: false}",
    "training": "{minibatch_size: 500, epochs: 3}",
    "training.minibatch_size": "500",
    "optimizer": "{name: sgd, lr: 0.1}",
    "optimizer.lr": "0.1",
    "optimizer.betas": "[0.9, 0.999]",
    "cluster": f"{{devices: {_DEVICES}}}",
    "cluster.devices": _DEVICES,
    "cluster.devices.kind": "simulated",
    "cluster.devices.compute": "100 GFLOP/s",
    "cluster.links": "{bandwidth: 10 GB/s, latency: 20 us}",
    "cluster.links.intra_node": "{bandwidth: 450 GB/s, latency: 5 us}",
    "cluster.links.inter_node": "{bandwidth: 25 GB/s, latency: 20 us}",
    "planner": "{objective: time_to_target}",
    "planner.strategies": "[accumulate, pipeline]",
    "planner.schedules": "[gpipe, 1f1b]",
    "planner.num_stages": "[2, 4]",
    "planner.num_microbatches": "[4, 8]",
    "planner.minibatch_sizes": "[250, 500]",
    "planner.keep_together": "[[2, 5], [7, 8]]",
    "planner.pinned": "[{layers: [0, 1], device: 0}]",
    "planner.pinned.layers": "[0, 1]",
    "planner.pinned.device": "0",
}
"""A value for every key that can be missing or of the wrong shape."""


def describe_missing(path: str) -> str:
    """The message for a key that is required and absent."""
    example = EXAMPLES.get(_general(path))
    advice = f"add it, for example `{path.rsplit('.', 1)[-1]}: {example}`" if example else "add it"
    if _general(path) == "cluster.devices.kind":
        advice += " (simulated, cpu or cuda), or name a device: `name: H100-SXM-80GB`"
    return f"is missing; {advice}"


def describe_wrong(node: Node, kind: str, context: Mapping[str, Any]) -> str:
    """The message for a value that the schema refuses, by the schema's kind of error and its context."""
    if kind in ("int_type", "float_type", "bool_type", "string_type"):
        return _describe_wrong_type(node, kind)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        # Of two or three the nearest in letters may be the farthest in meaning: float16 is not nearly float64.
        is_slip = isinstance(node.value, str) and len(choices) > 3
        hint = suggest_word(str(node.value), choices) if is_slip else ""
        if node.path == "model.loss":
            choices.append("a function of yours, package.module:function")
        return f"{node.shown} is not available; choose {_one_of(choices)}{hint}"
    if kind in ("tuple_type", "model_type", "missing", "too_short", "too_long"):
        return _describe_wrong_shape(node, kind, context)
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return describe_out_of_range(node, kind, next(iter(context.values())))
    if kind in ("string_too_short", "string_too_long"):
        size, limit = ("short", "least") if kind == "string_too_short" else ("long", "most")
        return f"{node.shown} is too {size}; the {limit} is {next(iter(context.values()))} characters"
    if kind == "no_index_or_name":
        return f"{node.shown} is neither a whole number from 0 nor a name"
    if kind == "extra_forbidden":
        return _describe_extra(node)
    return f"{node.shown} is not a finite number" if kind == "finite_number" else f"{node.shown} is not valid here"


def _describe_extra(node: Node) -> str:
    """The message for a key that is known, but not beside others that are there."""
    if node.path == "model.microbatch_size":
        return "goes with model.costs, a table of layer costs; use planner.num_microbatches, or remove it"
    return "is for a network that is trained, a chain of model.costs is only planned; remove it"


def describe_not_whole(node: Node) -> str:
    """The message for what should be a whole number and is not."""
    value = _number_within(node)
    if isinstance(node.value, str) and value is not None:
        return f"{node.shown} is text; write the number plainly: {value:.15g}"
    if node.text.isdecimal() and len(node.text) > 20:
        return f"a number of {len(node.text)} digits is too large"
    if isinstance(node.value, float) and node.value.is_integer() and abs(node.value) < 1e18:
        return f"{node.shown} is not written as a whole number; write {int(node.value)}"
    return f"{node.shown} is not a whole number"


def describe_out_of_range(node: Node, kind: str, limit: float) -> str:
    """The message for a number beyond a limit, which itself is admitted or not."""
    size = "small" if kind.startswith("greater") else "large"
    shown_limit = str(limit) if isinstance(limit, int) else f"{limit:g}"
    words = {"greater_than": "it must be more than", "greater_than_equal": "the least is"}
    words |= {"less_than": "it must be less than", "less_than_equal": "the most is"}
    return f"{node.shown} is too {size}; {words[kind]} {shown_limit}"


def _describe_wrong_type(node: Node, kind: str) -> str:
    if kind == "int_type":
        return describe_not_whole(node)
    if kind == "bool_type":
        return f"{node.shown} is not true or false; use true or false"
    if kind == "string_type":
        return f"{node.shown} is not text; put it in quotes if it is meant"
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return f"{node.shown} is too large"
    value = _number_within(node)
    advice = "" if value is None else f"; write the number plainly: {value:.15g}"
    return f"{node.shown} is {'not a number' if value is None else 'text'}{advice}"


def _describe_wrong_shape(node: Node, kind: str, context: Mapping[str, Any]) -> str:
    example = EXAMPLES.get(_general(node.path))
    advice = f"; write it like {example}" if example else ""
    if kind == "too_long":
        return f"the list is too long: {context['actual_length']} entries, the most is {context['max_length']}"
    if kind in ("too_short", "missing"):
        return f"the list is too short{advice}"
    expected = "a list" if kind == "tuple_type" else "a section with keys"
    return f"{node.shown} is not {expected}{advice}"


def _number_within(node: Node) -> float | None:
    """The number that a text such as '500' or 1_000 holds, None for any other."""
    if not isinstance(node.value, str):
        return None
    value = read_plain_scalar(node.value.strip().replace("_", ""))
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
    return value if is_number and isinstance(value, int | float) else None


def _one_of(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _general(path: str) -> str:
    """The path without the indices of lists."""
    return ".".join(key for key in path.split(".") if not key.isdecimal())
