"""What Python callers hand over in place of a path, of overrides or of an experiment is told in one line."""

from __future__ import annotations

import os
from collections.abc import Iterable

from partition.config.nodes import quote
from partition.config.schema import ChainConfig, ExperimentConfig
from partition.errors import PartitionError


def check_path(path: object) -> str:
    """The path as text, or PartitionError."""
    shown = os.fspath(path) if isinstance(path, os.PathLike) else path
    if isinstance(shown, str):
        return shown
    raise PartitionError(f"an experiment is read from a path as text or pathlib.Path, got {kind_of(path)}; name a file")


def check_overrides(overrides: object) -> tuple[str, ...]:
    """The overrides, each a text, or PartitionError."""
    remedy = 'give a list of texts, as ["training.minibatch_size=250"]'
    if isinstance(overrides, str | bytes) or not isinstance(overrides, Iterable):
        raise PartitionError(f"overrides are {kind_of(overrides)}; {remedy}")
    found = tuple(overrides)
    for override in found:
        if not isinstance(override, str):
            raise PartitionError(f"an override is {kind_of(override)}; {remedy}")
    return found


def check_name(name: object) -> str | None:
    """The name of an experiment, None where there is none, or PartitionError."""
    if name is None or (isinstance(name, str) and name.isprintable()):
        return name
    shown = quote(name) if isinstance(name, str) else kind_of(name)
    raise PartitionError(f"the name of an experiment is {shown}; give printable text, as it names a directory")


def check_experiment(config: object) -> None:
    """Raise PartitionError for what is no experiment."""
    if not isinstance(config, ExperimentConfig | ChainConfig):
        raise PartitionError(f"an experiment is wanted, got {kind_of(config)}; give what load_config(path) returns")


def kind_of(value: object) -> str:
    """The name of its type, as messages give it."""
    return type(value).__name__
