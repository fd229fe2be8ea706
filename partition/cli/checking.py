"""`partition validate` and `partition config`: what is wrong with an experiment, and what it comes to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from partition.cli.options import Verbs, add_verb, load_plannable, print_json
from partition.config import dump_config, resolve
from partition.errors import ConfigError, PartitionError, Problem
from partition.plan import Search


def add(verbs: Verbs) -> None:
    """The verbs `validate` and `config`."""
    add_verb(verbs, "validate", run_validate, "show everything that is wrong with an experiment")
    add_verb(verbs, "config", run_config, "print the experiment with all defaults and overrides resolved")


def run_validate(options: argparse.Namespace) -> int:
    """Everything that is wrong, at once."""
    problems: Sequence[Problem] = ()
    try:
        config = load_plannable(options)
        Search(config)
    except PartitionError as error:
        if not options.json:
            raise
        as_one = (Problem(options.config, None, "", str(error)),)
        problems = error.problems if isinstance(error, ConfigError) else as_one
    if options.json:
        shown = [problem._asdict() for problem in problems]
        print_json({"schema_version": 1, "file": options.config, "problems": shown})
        return ConfigError.exit_code if problems else 0
    print(f"{options.config}: no problem found")
    return 0


def run_config(options: argparse.Namespace) -> int:
    """The resolved experiment."""
    config = load_plannable(options, may_lack_data=True)
    if options.json:
        print_json({"schema_version": 1, "experiment": resolve(config)})
    else:
        print(dump_config(config), end="")
    return 0
