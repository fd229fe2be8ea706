"""Is the verdict right when measured? Experiments on this machine, planned from a profile, then every way trained.

python -m scripts.benchmarks.verdicts                     prints the tables, writes docs/results/verdicts.json
python -m scripts.benchmarks.verdicts --only small        the experiments of one network, printed only

Three networks, one bound by arithmetic, one by overheads and one between them, each on two processes of one host and on
two hosts (network namespaces) whose link is shaped to 1000, 100 and 10 Mbit/s. For each the costs are measured, the
planner chooses, and the best candidate of every strategy is trained, all in turns and three times, as others slow this
machine down for seconds; of each the median counts. Those that took over twice the fastest are not trained again. The
verdict is right where the chosen one is the fastest measured, or within 5% of it. Needs root and iproute2 for the
hosts; without, only one host is tried.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.commands import run_verb, step_times, train_candidate
from scripts.benchmarks.replay import write_result
from scripts.benchmarks.rounds import ROUNDS

WITHIN = 0.05
HOPELESS = 2.0
"""Times the fastest, in the first round."""
STEPS = 16
RATES = (None, "1000mbit", "100mbit", "10mbit")
"""None: one host."""
STRATEGIES = ("whole", "accumulate", "pipeline", "data_parallel")


def network(width: int, depth: int, minibatch_size: int) -> dict[str, Any]:
    """An experiment of equal layers on two devices."""
    return {
        "model": {
            "in_features": 256,
            "hidden_features": {"width": width, "depth": depth},
            "out_features": 10,
            "activation": "relu",
        },
        "data": {"source": "synthetic"},
        "training": {"minibatch_size": minibatch_size, "steps": STEPS},
        "optimizer": {"name": "sgd", "lr": 0.001},
        "cluster": {"devices": {"count": 2, "kind": "cpu", "memory": "2 GiB"}},
        "planner": {"strategies": list(STRATEGIES), "num_microbatches": [1, 2, 4, 8, 16]},
    }


NETWORKS = {
    "wide": network(1024, 6, 256),
    "between": network(256, 12, 512),
    "small": network(64, 12, 128),
}


def main() -> None:
    """Measure every experiment, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(NETWORKS))
    parser.add_argument("--no-result", action="store_true", help="print only")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in [options.only] if options.only else NETWORKS:
        for rate in RATES:
            row = _experiment(name, rate)
            if row is None:
                print("two hosts cannot be made on this machine; only one was tried")
                break
            rows.append(row)
            _print(row)
    right = sum(row["is_right"] for row in rows)
    print(f"{right} of {len(rows)} verdicts are right: the fastest measured, or within {WITHIN:.0%} of it")
    if not options.no_result and not options.only:
        write_result("verdicts", "scripts/benchmarks/verdicts.py", [{"right": right, "of": len(rows)}, *rows])


def _experiment(name: str, rate: str | None) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory(prefix="partition-verdicts-") as folder:
        path, costs = Path(folder) / f"{name}.yaml", Path(folder) / "costs.json"
        path.write_text(json.dumps(NETWORKS[name]), encoding="utf-8")
        run_verb("profile", path, "--costs-file", str(costs), num_processes=2, rate=rate)
        if not costs.exists():
            return None
        planned = json.loads(run_verb("plan", path, f"planner.costs={costs}", "--out", str(Path(folder) / "plan")))
        ways = {}
        for candidate in planned["candidates"]:
            if candidate["feasible"] and candidate["exact_gradient"]:
                ways.setdefault(candidate["strategy"], candidate)
        chosen = next(one for one in planned["candidates"] if one["name"] == planned["chosen"])
        ways[chosen["strategy"]] = chosen
        found = _train_in_turns(path, costs, list(ways.values()), rate)
    fastest_s = min(one["measured_s"] for one in found.values())
    return {
        "network": name,
        "link": rate or "one host",
        "chosen": planned["chosen"],
        "is_right": found[planned["chosen"]]["measured_s"] <= (1 + WITHIN) * fastest_s,
        "candidates": found,
    }


def _train_in_turns(
    path: Path, costs: Path, candidates: list[dict[str, Any]], rate: str | None
) -> dict[str, dict[str, Any]]:
    """The predicted step of every candidate and the median of the measured ones."""
    rounds: dict[str, list[dict[str, float]]] = {candidate["name"]: [] for candidate in candidates}
    for _ in range(ROUNDS):
        for candidate in candidates:
            name, num_processes = candidate["name"], candidate["num_devices"]
            out = train_candidate(path, costs, name, num_processes=num_processes, rate=rate)
            rounds[name].append(step_times(out))
        fastest_s = min(of_one[0]["measured_s"] for of_one in rounds.values())
        candidates = [one for one in candidates if rounds[one["name"]][0]["measured_s"] <= HOPELESS * fastest_s]
    return {name: _of_rounds(of_one) for name, of_one in rounds.items()}


def _of_rounds(rounds: list[dict[str, float]]) -> dict[str, Any]:
    measured = [one["measured_s"] for one in rounds]
    return {
        "predicted_s": rounds[0]["predicted_s"],
        "measured_s": statistics.median(measured),
        "measured_in_rounds_s": measured,
    }


def _print(row: dict[str, Any]) -> None:
    print(f"{row['network']}, {row['link']}: {'right' if row['is_right'] else 'WRONG'}")
    for name, one in sorted(row["candidates"].items(), key=lambda item: float(item[1]["measured_s"])):
        mark = "  <- chosen" if name == row["chosen"] else ""
        predicted, measured = (f"{one[key] * 1e3:10.2f} ms" for key in ("predicted_s", "measured_s"))
        print(f"    {name:32}{predicted} predicted{measured} measured{mark}", flush=True)


if __name__ == "__main__":
    main()
