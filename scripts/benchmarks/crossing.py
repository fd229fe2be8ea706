"""The bandwidth at which the verdict turns: predicted, and measured on shaped links.

python -m scripts.benchmarks.crossing        prints, and writes docs/results/crossing.json

Two hosts (network namespaces) measure their costs over a link of one bandwidth. From these `plan --break-even` says at
which bandwidth another way becomes the fastest. Then both ways are trained over links around that bandwidth, in turns,
and where their seconds cross is read off between the two bandwidths on either side. The ways are a pipeline, whose
messages are activations, and data parallel, whose messages are gradients: both keep both hosts busy, and their seconds
depend on the link so differently that the crossing is a matter of the link. Needs root and iproute2; where namespaces
are not permitted it says so and writes nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.commands import run_verb
from scripts.benchmarks.replay import write_result
from scripts.benchmarks.verdicts import network

PROFILED_KBIT = 400_000
"""The link on which costs are measured; the crossing is elsewhere."""
AROUND = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Times the predicted bandwidth."""
BOUND = 0.20


def _experiment(num_microbatches: int) -> dict[str, Any]:
    """Gradients of twice the bytes of the activations between two halves of it."""
    planner = {
        "strategies": ["pipeline", "data_parallel"],
        "num_microbatches": [num_microbatches],
        "schedules": ["1f1b"],
    }
    return {**network(512, 8, 1024), "planner": planner}


EXPERIMENTS = {"two microbatches": _experiment(2), "one microbatch": _experiment(1)}


def main() -> None:
    """Measure every experiment, print, write the result."""
    rows = []
    for name, experiment in EXPERIMENTS.items():
        row = crossing(name, experiment)
        if row is None:
            print("two hosts cannot be made on this machine; nothing was measured")
            return
        rows.append(row)
        print("{experiment}: predicted {predicted_kbit} kbit/s ({below} below, {above} above), measured "
              "{measured_kbit}, error {error}".format(**row), flush=True)  # fmt: skip
    write_result("crossing", "scripts/benchmarks/crossing.py", [{"bound": BOUND}, *rows])


def crossing(name: str, experiment: dict[str, Any]) -> dict[str, Any] | None:
    """The predicted and the measured bandwidth of one experiment; None where there are no two hosts."""
    with tempfile.TemporaryDirectory(prefix="partition-crossing-") as folder:
        path, costs = Path(folder) / "experiment.yaml", Path(folder) / "costs.json"
        path.write_text(json.dumps(experiment), encoding="utf-8")
        run_verb("profile", path, "--costs-file", str(costs), rate=f"{PROFILED_KBIT}kbit")
        if not costs.exists():
            return None
        out = ("--out", str(Path(folder) / "plan"))
        planned = json.loads(run_verb("plan", path, f"planner.costs={costs}", "--break-even", *out))
        found = {"experiment": name, "profiled_kbit": PROFILED_KBIT, **predicted_crossing(planned, PROFILED_KBIT)}
        if found["predicted_kbit"] is None:
            return {**found, "points": [], "measured_kbit": None, "error": None}
        points = []
        for factor in AROUND:
            kbit = round(found["predicted_kbit"] * factor)
            below_s, above_s = (_train(path, costs, found[way], kbit) for way in ("below", "above"))
            points.append((kbit, below_s, above_s))
            print(f"    {kbit:9,} kbit/s: {below_s * 1e3:8.2f} and {above_s * 1e3:8.2f} ms", flush=True)
    measured = measured_crossing(points)
    error = None if measured is None else found["predicted_kbit"] / measured - 1
    return {**found, "points": points, "measured_kbit": measured, "error": error}


def predicted_crossing(planned: dict[str, Any], profiled_kbit: int) -> dict[str, Any]:
    """The nearest bandwidth at which the verdict turns, and the fastest ways below and above it."""
    flips = [flip for flip in planned["break_even"]["link_bandwidth"] if flip["candidate"] is not None]
    if not flips:
        return {"predicted_kbit": None, "below": planned["chosen"], "above": planned["chosen"]}
    flip = min(flips, key=lambda one: abs(math.log(one["factor"])))
    ways = (planned["chosen"], flip["candidate"])
    below, above = ways if flip["factor"] > 1 else ways[::-1]
    return {"predicted_kbit": round(profiled_kbit * flip["factor"]), "below": below, "above": above}


def measured_crossing(points: list[tuple[int, float, float]]) -> float | None:
    """Where the seconds of the two ways are equal, on a straight line between logarithms."""
    for (slow, *slow_s), (fast, *fast_s) in itertools.pairwise(points):
        leads = [math.log(below / above) for below, above in (slow_s, fast_s)]
        if (leads[0] > 0) != (leads[1] > 0):
            return float(slow * (fast / slow) ** (leads[0] / (leads[0] - leads[1])))
    return None


def _train(path: Path, costs: Path, name: str, kbit: int) -> float:
    out = path.parent / f"{name}-{kbit}"
    run_verb("train", path, f"planner.costs={costs}", "--strategy", name, "--out", str(out), rate=f"{kbit}kbit")
    return float(json.loads((out / "summary.json").read_text(encoding="utf-8"))["step_time"]["measured_s"])


if __name__ == "__main__":
    main()
