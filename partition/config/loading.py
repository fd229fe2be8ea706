"""An experiment from its file: read, overridden, checked, with everything wrong in it told at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path

from partition.config.arguments import check_name, check_overrides, check_path
from partition.config.keys import keep_known_keys
from partition.config.nodes import Node, quote
from partition.config.normalise import normalise
from partition.config.overrides import apply_overrides
from partition.config.schema import ChainConfig, ClusterConfig, ClusterFile, ExperimentConfig
from partition.config.validation import Described, validate
from partition.config.yaml_reader import read_yaml
from partition.errors import ConfigError, Problem

_LARGEST_FILE_BYTES = 2**20
_MOST_PROBLEMS = 100

AnyConfig = ExperimentConfig | ChainConfig
"""What `partition plan` takes."""

_TOP_KEYS = "model, data, training, optimizer and cluster"


def load_config(path: str | PathLike[str], overrides: Sequence[str] = (), *, name: str | None = None) -> AnyConfig:
    """The experiment in a YAML file, with `key.path=value` overrides laid over it.

    One whose model is a table of costs is a ChainConfig: it can be planned, not run. `name` is that of the experiment:
    the stem of the file unless given. Raises ConfigError with every problem of the file and the overrides, in the
    order of lines.

    >>> config = load_config("configs/mnist.yaml", ["training.minibatch_size=250"])  # doctest: +SKIP
    """
    overrides, name = check_overrides(overrides), check_name(name)
    root, problems = _read(check_path(path))
    root = apply_overrides(root, overrides, problems)
    name = name or Path(path).stem
    if _is_chain(root):
        return _described(path, root, problems, ChainConfig, name=name)
    return _described(path, root, problems, ExperimentConfig, name=name)


def load_cluster(path: str | PathLike[str]) -> ClusterConfig:
    """The cluster of a YAML file that has the section `cluster` of an experiment; the rest of it is not read.

    Raises ConfigError with every problem of that section.
    """
    root, problems = _read(check_path(path))
    assert isinstance(root.value, Mapping)
    kept = root.with_value({key: child for key, child in root.value.items() if key == "cluster"})
    return _described(path, kept, problems, ClusterFile).cluster


def _read(path: str | PathLike[str]) -> tuple[Node, list[Problem]]:
    """The tree of a file that holds keys, and what its YAML has wrong."""
    shown = fspath(path)
    file = shown if shown and shown.isprintable() else quote(shown)
    root, problems = read_yaml(_read_text(path, file), file=file)
    if not isinstance(root.value, Mapping):
        raise ConfigError([*problems, _no_experiment(root)])
    return root, problems


def _is_chain(root: Node) -> bool:
    model = root.value.get("model") if isinstance(root.value, Mapping) else None
    return model is not None and isinstance(model.value, Mapping) and "costs" in model.value


def _described(
    path: str | PathLike[str], root: Node, problems: list[Problem], kind: type[Described], **values_besides: str
) -> Described:
    """What a tree describes; raises ConfigError with all problems."""
    told: list[Problem] = []
    root = normalise(keep_known_keys(root, told), told, folder=os.path.dirname(fspath(path)))
    config, found = validate(root, kind, **values_besides)
    problems = [*problems, *told, *_not_yet_told(found, told)]
    if problems:
        raise ConfigError(_in_order(problems))
    assert config is not None, "an experiment is refused with a reason"
    return config


def _read_text(path: str | PathLike[str], file: str) -> str:
    try:
        mode = Path(path).stat().st_mode
        # A pipe or a terminal is not opened: it would be waited for without end.
        content = _read_start(path) if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        raise _refusal(file, "there is no such file; check the path") from None
    except OSError as error:
        raise _refusal(file, f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _refusal(file, "the path holds a null character; check it") from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise _refusal(file, f"is {kind}; name an experiment in YAML")
    return _decode(content, file)


def _read_start(path: str | PathLike[str]) -> bytes:
    with Path(path).open("rb") as stream:
        return stream.read(_LARGEST_FILE_BYTES + 1)


def _decode(content: bytes, file: str) -> str:
    if len(content) > _LARGEST_FILE_BYTES:
        raise _refusal(file, "is larger than 1 MiB, the limit; name an experiment in YAML")
    if b"\0" in content:
        raise _refusal(file, "is a binary file; name an experiment in YAML")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refusal(file, "is not text in UTF-8; save it as UTF-8, or name an experiment in YAML", line) from None


def _refusal(file: str, message: str, line: int | None = None) -> ConfigError:
    return ConfigError([Problem(file, line, "", message)])


def _no_experiment(root: Node) -> Problem:
    if root.value is None:
        return root.problem(f"the file is empty; an experiment has the keys {_TOP_KEYS}")
    return root.problem(f"the file holds {root.shown}, not keys; an experiment has the keys {_TOP_KEYS}")


def _not_yet_told(found: Iterable[Problem], told: Iterable[Problem]) -> list[Problem]:
    """The problems found with values that nothing else was told about, neither they themselves nor what they hold."""
    places = {place for problem in told for place in _with_ancestors(problem.key)}
    fresh = []
    for problem in found:
        if problem.key not in places:
            fresh.append(problem)
            places.add(problem.key)
    return fresh


def _with_ancestors(path: str) -> list[str]:
    keys = path.split(".")
    return [".".join(keys[:length]) for length in range(1, len(keys) + 1)]


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, by line, those of overrides last; a file that is none of ours has them by the thousand."""
    unique = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line is None, problem.line))
    num_left = len(unique) - _MOST_PROBLEMS
    last = [Problem(unique[0].file, None, "", f"and {num_left} more problems")] if num_left > 0 else []
    return unique[:_MOST_PROBLEMS] + last
