"""Predicted beside measured step over a network of known bandwidth: two hosts that are two network namespaces.

python -m scripts.benchmarks.shaped_links                 prints every pair, writes docs/results/shaped_links.json

For each bandwidth the two hosts measure their costs together and then train, over the same cable, in several rounds, of
which the pair with the median error counts. Needs root and iproute2; where namespaces are not permitted it says so and
writes nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.commands import run_verb, step_times, train_candidate
from scripts.benchmarks.replay import write_result
from scripts.benchmarks.rounds import ROUNDS, middle

RATES = ("10mbit", "100mbit", "1000mbit")
CANDIDATES = ("pipeline-2x4-1f1b", "pipeline-2x16-1f1b", "pipeline-2x8-gpipe", "pipeline-2x8-zb_h1")
STEPS = 14
BOUND = 0.10

EXPERIMENT: dict[str, Any] = {
    "model": {
        "in_features": 784,
        "hidden_features": [1024, 1024, 1024, 256, 1024, 1024, 1024],
        "out_features": 10,
        "activation": "relu",
    },
    "data": {"source": "synthetic"},
    "training": {"minibatch_size": 512, "steps": STEPS},
    "optimizer": {"name": "sgd", "lr": 0.001},
    "cluster": {"devices": {"count": 2, "kind": "cpu", "memory": "4 GiB"}},
}


def main() -> None:
    """Measure every bandwidth and candidate, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        measured = _round()
        if measured is None:
            print("two hosts cannot be made on this machine; nothing was measured")
            return
        rounds.append(measured)
    rows = [middle(of_one) for of_one in zip(*rounds, strict=True)]
    print(f"of {options.rounds} rounds the pairs with the median error:")
    for row in rows:
        _print(row)
    worst = max(abs(row["error"]) for row in rows)
    print(f"worst {worst:.1%}, bound {BOUND:.0%}")
    write_result("shaped_links", "scripts/benchmarks/shaped_links.py", [{"worst_error": worst, "bound": BOUND}, *rows])


def _round() -> list[dict[str, Any]] | None:
    """Every bandwidth and candidate once; None where there are no two hosts."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="partition-shaped-") as folder:
        path = Path(folder) / "shaped.yaml"
        path.write_text(json.dumps(EXPERIMENT), encoding="utf-8")
        for rate in RATES:
            costs = Path(folder) / f"{rate}.json"
            run_verb("profile", path, "--costs-file", str(costs), rate=rate)
            if not costs.exists():
                return None
            for candidate in CANDIDATES:
                rows.append(_measure(rate, path, costs, candidate))
                _print(rows[-1])
    return rows


def _print(row: dict[str, Any]) -> None:
    print(
        f"{row['rate']:>9}  {row['candidate']:24}{row['predicted_s'] * 1e3:10.1f} ms predicted"
        f"{row['measured_s'] * 1e3:10.1f} ms measured {row['error']:+7.1%}",
        flush=True,
    )


def _measure(rate: str, path: Path, costs: Path, candidate: str) -> dict[str, Any]:
    out = train_candidate(path, costs, candidate, num_processes=2, rate=rate)
    return {"rate": rate, "candidate": candidate, **step_times(out)}


if __name__ == "__main__":
    main()
