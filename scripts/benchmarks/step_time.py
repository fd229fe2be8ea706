"""Predicted beside measured step, each experiment profiled and trained one right after the other.

python -m scripts.benchmarks.step_time                    prints every pair, writes docs/results/step_time.json
python -m scripts.benchmarks.step_time --only wide        the experiments of one network

In several rounds, about half an hour in all; of each experiment the pair with the median error counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.benchmarks.commands import run_verb, step_times, train_candidate
from scripts.benchmarks.replay import write_result
from scripts.benchmarks.rounds import ROUNDS, middle

LEAST_S = 0.020
"""Steps that the bounds are for; shorter ones are reported beside them."""
STEPS = 30
MEDIAN_BOUND, WORST_BOUND = 0.05, 0.15

_ONE = ("whole", "accumulate-2", "accumulate-8", "accumulate-32")
_TWO = (
    "pipeline-2x8-gpipe",
    "pipeline-2x4-1f1b",
    "pipeline-2x16-1f1b",
    "pipeline-2x8-interleaved_1f1b",
    "pipeline-2x8-zb_h1",
    "pipeline-2x8-zb_h2",
    "pipeline-2x8-zbv",
    "data_parallel-2x1",
)


def _network(width: int, depth: int, activation: str, minibatch_size: int, optimizer: str) -> dict[str, Any]:
    is_sgd = optimizer == "sgd"
    return {
        "model": {
            "in_features": 512,
            "hidden_features": {"width": width, "depth": depth},
            "out_features": 10,
            "activation": activation,
            "l2_penalty": 1e-4 if is_sgd else 0.0,
        },
        "data": {"source": "synthetic"},
        "training": {"minibatch_size": minibatch_size, "steps": STEPS},
        "optimizer": {"name": optimizer, "lr": 0.001, **({"momentum": 0.9} if is_sgd else {})},
        "cluster": {"devices": {"count": 2, "kind": "cpu", "memory": "4 GiB"}},
    }


NETWORKS = {
    "wide": _network(1024, 8, "gelu", 512, "sgd"),
    "narrow": _network(256, 16, "relu", 1024, "adam"),
    "small": _network(64, 16, "relu", 256, "sgd"),
}


def main() -> None:
    """Measure all pairs, print them, judge the longer steps, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(NETWORKS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-result", action="store_true", help="print only")
    options = parser.parse_args()
    names = [options.only] if options.only else list(NETWORKS)
    rounds = [[_printed(pair) for name in names for pair in _pairs(name)] for _ in range(options.rounds)]
    print(f"of {options.rounds} rounds the pairs with the median error:")
    pairs = [_printed(middle(of_one)) for of_one in zip(*rounds, strict=True)]
    summary = _summary(pairs)
    print(json.dumps(summary))
    if not options.no_result:
        write_result("step_time", "scripts/benchmarks/step_time.py", [summary, *pairs])


def _printed(pair: dict[str, Any]) -> dict[str, Any]:
    print(
        "{network:8}{candidate:32}{num_processes} ".format(**pair) + f"process{'es' * (pair['num_processes'] > 1):3}"
        f"{pair['predicted_s'] * 1e3:10.2f} ms predicted{pair['measured_s'] * 1e3:10.2f} ms measured "
        f"[{pair['least_s'] * 1e3:.1f} to {pair['most_s'] * 1e3:.1f}] {pair['error']:+7.1%}",
        flush=True,
    )
    return pair


def _summary(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"least_s": LEAST_S, "median_bound": MEDIAN_BOUND, "worst_bound": WORST_BOUND}
    for name, is_long in (("long", True), ("short", False)):
        errors = [abs(pair["error"]) for pair in pairs if (pair["measured_s"] >= LEAST_S) == is_long]
        if errors:
            found |= {
                f"{name}_steps": len(errors),
                f"{name}_median_error": statistics.median(errors),
                f"{name}_worst_error": max(errors),
            }
    return found


def _pairs(name: str) -> Iterator[dict[str, Any]]:
    """One process with costs of its own, then two."""
    with tempfile.TemporaryDirectory(prefix="partition-step-time-") as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(json.dumps(NETWORKS[name]), encoding="utf-8")
        for num_processes, candidates in ((1, _ONE), (2, _TWO)):
            costs = Path(folder) / f"costs-{num_processes}.json"
            run_verb("profile", path, "--costs-file", str(costs), num_processes=num_processes)
            for candidate in candidates:
                yield _pair(name, path, costs, candidate, num_processes)


def _pair(name: str, path: Path, costs: Path, candidate: str, num_processes: int) -> dict[str, Any]:
    out = train_candidate(path, costs, candidate, num_processes=num_processes)
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["step_s"] for line in lines][5:]
    return {
        "network": name,
        "candidate": candidate,
        "num_processes": num_processes,
        "least_s": min(steps),
        "most_s": max(steps),
        **step_times(out),
    }


if __name__ == "__main__":
    main()
