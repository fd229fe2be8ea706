"""What the verbs share: their common options, the experiment they take, how they print JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from partition.cli.processes import WHEN_ENDED
from partition.config import AnyConfig, ChainConfig, ExperimentConfig, load_config
from partition.data import AbsentDataError
from partition.data import check as check_data
from partition.errors import ConfigError, PartitionError, Problem

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run = Callable[[argparse.Namespace], int]


def add_bare_verb(verbs: Verbs, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A verb with what all verbs take."""
    verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    verb.set_defaults(run=run, overrides=[], set=[], when_ended=WHEN_ENDED)
    return verb


def add_verb(verbs: Verbs, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A verb that takes an experiment and overrides."""
    verb = add_bare_verb(verbs, name, run, text)
    verb.add_argument("config", metavar="CONFIG", help="the experiment, a YAML file")
    verb.add_argument("overrides", nargs="*", metavar="key.path=value", help="values that replace those of the file")
    verb.add_argument("--set", action="append", default=[], metavar="key.path=value", help="the same")
    return verb


def add_out(verb: argparse.ArgumentParser) -> None:
    """The option that names the run directory."""
    verb.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/<name of the experiment>)")


def load_experiment(options: argparse.Namespace, *, may_lack_data: bool = False) -> ExperimentConfig:
    """The experiment with overrides, checked against its data; with a note where these may be absent, and are.

    Raises PartitionError for one that can only be planned.
    """
    config = load_plannable(options, may_lack_data=may_lack_data)
    if isinstance(config, ChainConfig):
        raise PartitionError(
            f"{options.config}: model.costs is a table of costs, there is no network to run; `partition plan` and "
            "`simulate` take it"
        )
    return config


def load_plannable(options: argparse.Namespace, *, may_lack_data: bool = False) -> AnyConfig:
    """The experiment with overrides, one that can be run checked against its data as `load_experiment` does."""
    config = load_config(options.config, [*options.overrides, *options.set])
    if isinstance(config, ChainConfig):
        return config
    try:
        problems = check_data(config, file=options.config)
    except AbsentDataError as error:
        problems = [Problem(file=options.config, line=None, key=error.key, message=error.message)]
        if may_lack_data:
            print(f"partition: {problems[0]} (the plan does not need it, training will)", file=sys.stderr)
            return config
    if problems:
        raise ConfigError(problems)
    return config


def run_path(options: argparse.Namespace, config: AnyConfig) -> Path:
    """The run directory asked for, or the usual one."""
    return options.out or Path("runs") / (config.name.strip(".") or "experiment")


def print_json(document: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=1))
