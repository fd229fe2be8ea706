"""`partition split`: the optimal split of a chain that is given as a table of layer costs."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from partition.cli.options import Verbs, add_bare_verb, print_json
from partition.config import load_cluster
from partition.costs import Chain, build_cluster, read_chain
from partition.errors import PartitionError
from partition.plan.asked_constraints import Known, read_constraints
from partition.plan.chain_problem import ChainProblem, alike_problem, cluster_problem
from partition.plan.chain_split import split_chain
from partition.plan.constraints import Constraints
from partition.report.chain_split import chain_split_record, chain_split_text
from partition.units import parse_bytes, parse_bytes_per_s

Number = TypeVar("Number", int, float)

LONGEST_WRITTEN = 100
"""Letters of the values of an option in a message."""


def add(verbs: Verbs) -> None:
    """The verb `split`."""
    verb = add_bare_verb(verbs, "split", run_split, "find the optimal split of a chain given as a CSV of layer costs")
    verb.add_argument("costs", type=Path, metavar="COSTS.csv", help="a row for each layer, of one microbatch")
    verb.add_argument("--stages", type=int, metavar="K", help="number of stages, none of them empty")
    verb.add_argument("--microbatches", type=int, default=1, metavar="M", help="microbatches of a step (default 1)")
    verb.add_argument("--objective", choices=("step", "bottleneck"), default="step", help="what to minimise")
    verb.add_argument("--cluster", type=Path, metavar="FILE.yaml", help="devices and links, as in an experiment")
    verb.add_argument(
        "--bandwidth", metavar="RATE", help='of every link, as "10 GB/s" (default: messages take no time)'
    )
    verb.add_argument("--memory", metavar="SIZE", help='of every device, as "16 GiB" (default: no limit)')
    verb.add_argument("--keep-together", nargs=2, action="append", default=[], metavar=("FIRST", "LAST"),
                      help="layers that one stage holds, by index from 0 or name; may be given again")  # fmt: skip
    verb.add_argument("--pin", nargs=3, action="append", default=[], metavar=("FIRST", "LAST", "DEVICE"),
                      help="layers that one stage on a device holds, by index or name; may be given again")  # fmt: skip


def run_split(options: argparse.Namespace) -> int:
    """Read, split, report."""
    if options.overrides:
        raise PartitionError(f"unexpected {options.overrides[0]!r}; a split takes one table and options, see --help")
    if options.stages is None:
        raise PartitionError("--stages is missing; say into how many stages, for example --stages 4")
    chain = read_chain(options.costs)
    problem = _problem(options, chain)
    split = split_chain(replace(problem, constraints=_constraints(options, problem)), options.objective)
    if options.json:
        print_json(chain_split_record(split))
    else:
        print(chain_split_text(chain, split))
    return 0


def _problem(options: argparse.Namespace, chain: Chain) -> ChainProblem:
    """The table on the devices of the options."""
    stages, microbatches = options.stages, options.microbatches
    if options.cluster is not None:
        given = next((name for name in ("bandwidth", "memory") if getattr(options, name) is not None), None)
        if given is not None:
            raise PartitionError(f"--{given}: --cluster says it for every device; give one of them")
        cluster = build_cluster(load_cluster(options.cluster), "float32", needs_rates=False)
        return cluster_problem(chain, stages, microbatches, cluster)
    bytes_per_s = math.inf if options.bandwidth is None else _read("--bandwidth", options.bandwidth, parse_bytes_per_s)
    limit_bytes = None if options.memory is None else _read("--memory", options.memory, parse_bytes)
    return alike_problem(chain, stages, microbatches, bytes_per_s=bytes_per_s, limit_bytes=limit_bytes)


def _constraints(options: argparse.Namespace, problem: ChainProblem) -> Constraints:
    """What the options ask of every split."""
    names = tuple(layer.name for layer in problem.chain.layers)
    known = Known(num_layers=len(names), layer_names=names, device_names=problem.device_names)
    together = [(_place("--keep-together", run), (_index_or_name(run[0]), _index_or_name(run[1])))
                for run in options.keep_together]  # fmt: skip
    pins = [(_place("--pin", pin), (_index_or_name(pin[0]), _index_or_name(pin[1])), _index_or_name(pin[2]))
            for pin in options.pin]  # fmt: skip
    return read_constraints(together, pins, known)


def _place(option: str, values: Sequence[str]) -> str:
    """An option that may be given again, told apart from the others by what it was given."""
    written = shlex.join(values)
    return f"{option} {written}" if written.isprintable() and len(written) <= LONGEST_WRITTEN else option


def _index_or_name(text: str) -> int | str:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else text


def _read(option: str, text: str, parse: Callable[[str], Number]) -> Number:
    """A quantity above 0."""
    try:
        value = parse(text)
    except PartitionError as error:
        raise PartitionError(f"{option}: {error}") from None
    if value <= 0:
        raise PartitionError(f"{option}: {text} is nothing; give more, or leave the option out")
    return value
