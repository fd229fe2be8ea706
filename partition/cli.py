"""The command `partition`: parses, calls, prints, exits; nothing else in the package prints or chooses exit codes."""

from __future__ import annotations

import argparse
import gc
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from partition.config import ExperimentConfig, dump_config, load_config, resolve
from partition.data import check as check_data
from partition.errors import ConfigError, NothingFitsError, PartitionError
from partition.plan import Candidate, Comparison, Search, compare, compare_with, comparison_record
from partition.plan.plan_file import plan_record, read_plan
from partition.record import RunDirectory
from partition.report import comparison_text, run_text

if TYPE_CHECKING:
    from rich.progress import Progress

    from partition.record import Metrics

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
    Show = Callable[[Metrics], None]

INTERRUPTED, TERMINATED = 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 2 bad input, 3 nothing fits, 4 a run failed, 130 and 143 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    signal.signal(signal.SIGTERM, _terminate)
    # Planning makes many small tuples that live on and no cycles: looking for those took a quarter of its time.
    gc.set_threshold(200_000)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except PartitionError as error:
        print(f"partition: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("partition: interrupted; what was recorded so far is on disk", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left, as `head` does: what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; overrides may stand before and after options."""
    parser = build_parser()
    options, rest = parser.parse_known_args(given)
    unknown = [argument for argument in rest if argument.startswith("-")]
    if unknown:
        parser.error(f"unknown option {', '.join(unknown)}")
    options.overrides += rest
    return options


def _terminate(*_: object) -> None:
    print("partition: terminated; what was recorded so far is on disk", file=sys.stderr)
    raise SystemExit(TERMINATED)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="partition",
        description="My network does not fit on my GPU: split its graph over several, or shrink the minibatch?",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    plan = _add_verb(verbs, "plan", run_plan, "compare every way to train, choose one, write its plan")
    _add_out(plan)
    plan.add_argument("--all", action="store_true", help="show every candidate, not the best of each kind")
    train = _add_verb(verbs, "train", run_train, "train the chosen plan, or another")
    _add_out(train)
    train.add_argument("--plan", type=Path, metavar="FILE", help="a plan that `partition plan` wrote")
    train.add_argument("--strategy", metavar="NAME", help="a candidate by its name in the comparison")
    train.add_argument("--force", action="store_true", help="run a candidate that is predicted not to fit")
    _add_verb(verbs, "validate", run_validate, "show everything that is wrong with an experiment")
    _add_verb(verbs, "config", run_config, "print the experiment with all defaults and overrides resolved")
    return parser


def _add_verb(verbs: Verbs, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    """A verb with what all verbs take."""
    verb = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
    verb.add_argument("config", metavar="CONFIG", help="the experiment, a YAML file")
    verb.add_argument("overrides", nargs="*", metavar="key.path=value", help="values that replace those of the file")
    verb.add_argument("--set", action="append", default=[], metavar="key.path=value", help="the same")
    verb.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    verb.set_defaults(run=run)
    return verb


def _add_out(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/<name of the experiment>)")


def _load(options: argparse.Namespace) -> ExperimentConfig:
    """The experiment with overrides, checked against its data."""
    config = load_config(options.config, [*options.overrides, *options.set])
    problems = check_data(config, file=options.config)
    if problems:
        raise ConfigError(problems)
    return config


def _out(options: argparse.Namespace, config: ExperimentConfig) -> Path:
    return options.out or Path("runs") / (config.name.strip(".") or "experiment")


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=1))


# Verbs


def run_plan(options: argparse.Namespace) -> int:
    """Compare, explain, write the plan."""
    config = _load(options)
    comparison = compare(config)
    if options.json:
        _print_json(comparison_record(comparison))
    else:
        print(comparison_text(comparison, is_complete=options.all))
    if comparison.chosen is None:
        return NothingFitsError.exit_code
    directory = RunDirectory(_out(options, config))
    path = directory.write_json("plan.json", plan_record(config, comparison.chosen, comparison.verdict))
    if not options.json:
        overrides = [*options.overrides, *options.set]
        command = ["partition", "train", options.config, *overrides, "--plan", str(path)]
        print(f"\nPlan written to {path}. Next:\n  {shlex.join(command)}")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Train the candidate of a plan file, of a name, or the chosen one."""
    config = _load(options)
    search = Search(config)
    candidate, verdict = _candidate(options, search)
    if not candidate.feasible and not options.force:
        raise NothingFitsError(f"{candidate.name}: {candidate.reason}; `partition plan` lists what fits, --force tries")
    from partition.data.dataset import load
    from partition.runtime import check_devices, num_steps, train

    check_devices(search, candidate)
    dataset = load(config)
    directory = RunDirectory(_out(options, config))
    command = ["partition", *sys.argv[1:]]
    directory.begin(config_text=dump_config(config), plan=plan_record(config, candidate, verdict), command=command)
    total = num_steps(config, dataset.num_train, candidate.minibatch_size)
    try:
        with _progress(total, candidate, is_quiet=options.json) as show:

            def observe(metrics: Metrics) -> None:
                directory.append(metrics)
                show(metrics)

            summary = train(search, candidate, dataset, observe).summary
        directory.end(summary)
    finally:
        directory.close()
    if options.json:
        _print_json(asdict(summary))
    else:
        print(f"\n{run_text(summary)}\n\nRun directory: {directory.path}")
    return 0


def _candidate(options: argparse.Namespace, search: Search) -> tuple[Candidate, str]:
    """The candidate to train and the verdict that it comes from."""
    if options.plan and options.strategy:
        raise PartitionError("--plan and --strategy both name what to train; give one of them")
    if options.plan:
        return read_plan(options.plan, search), ""
    comparison = compare_with(search)
    if options.strategy:
        return _by_name(comparison, options.strategy), comparison.verdict
    if comparison.chosen is None:
        raise NothingFitsError(comparison.verdict)
    return comparison.chosen, comparison.verdict


def _by_name(comparison: Comparison, name: str) -> Candidate:
    candidate = comparison.candidate(name)
    if candidate is None:
        names = ", ".join(one.name for one in comparison.candidates[:8])
        raise PartitionError(f"--strategy {name}: no such candidate; there are {names}, ... (`partition plan --all`)")
    if not candidate.stages:
        raise PartitionError(f"--strategy {name}: cannot be laid out: {candidate.reason}")
    return candidate


def run_validate(options: argparse.Namespace) -> int:
    """Everything that is wrong, at once."""
    problems = []
    try:
        config = _load(options)
        Search(config)
    except ConfigError as error:
        problems = [problem._asdict() for problem in error.problems]
        if not options.json:
            raise
    if options.json:
        _print_json({"schema_version": 1, "file": options.config, "problems": problems})
        return ConfigError.exit_code if problems else 0
    print(f"{options.config}: no problem found")
    return 0


def run_config(options: argparse.Namespace) -> int:
    """The resolved experiment."""
    config = _load(options)
    if options.json:
        _print_json({"schema_version": 1, "experiment": resolve(config)})
    else:
        print(dump_config(config), end="")
    return 0


# Progress


@contextmanager
def _progress(total: int, candidate: Candidate, *, is_quiet: bool) -> Iterator[Show]:
    """Shows every step: a bar on a terminal, a line for every tenth of the run elsewhere, nothing where quiet."""
    if is_quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(candidate.name, total=total)
            yield lambda metrics: bar.update(task, completed=metrics.step, description=f"loss {metrics.loss:.4f}")
    else:
        print(f"Training {candidate.name}: {total} steps", flush=True)
        every = -(-total // 10)
        clock = " (simulated)" if candidate.stages[0].device.startswith("simulated") else ""
        yield lambda metrics: None if metrics.step % every else print(_line(metrics, total) + clock, flush=True)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _line(metrics: Metrics, total: int) -> str:
    return f"  step {metrics.step}/{total}  loss {metrics.loss:.4f}  {metrics.samples_per_s:,.0f} samples/s"
