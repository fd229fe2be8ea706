"""The bandwidth at which the verdict turns: predicted, and measured on shaped links.

python -m scripts.benchmarks.crossing        prints, and writes docs/results/crossing.json

Two hosts (network namespaces) measure their costs over a link of one bandwidth. From these `plan --break-even` says at
which bandwidth another way becomes the fastest. Then both ways are trained over links around that bandwidth, in turns
and three times, as others slow this machine down for seconds; of each the median counts, and where their seconds cross
is read off a straight line through the logarithms of all. The ways are one device, whose
seconds do not depend on the link, and data parallel, which sends gradients; and data parallel and a pipeline,
which sends activations. Needs root and iproute2; where namespaces are not permitted it says so and writes nothing.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.commands import run_verb, step_times
from scripts.benchmarks.replay import write_result
from scripts.benchmarks.rounds import ROUNDS
from scripts.benchmarks.verdicts import network

PROFILED_KBIT = 400_000
"""The link on which costs are measured; the crossing is elsewhere."""
AROUND = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Times the predicted bandwidth."""
BOUND = 0.20


def _experiment(minibatch_size: int, *strategies: str) -> dict[str, Any]:
    planner = {"strategies": list(strategies), "num_microbatches": [2], "schedules": ["1f1b"]}
    return {**network(512, 8, minibatch_size), "planner": planner}


EXPERIMENTS = {
    "one device and data parallel": _experiment(3072, "whole", "data_parallel"),
    # Large enough that the ways cross near the profiled link: what messages cost the processor is not the link's.
    "pipeline and data parallel": _experiment(2048, "pipeline", "data_parallel"),
}


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
        devices = {one["name"]: one["num_devices"] for one in planned["candidates"]}
        links = [round(found["predicted_kbit"] * factor) for factor in AROUND]
        rounds = [
            [
                tuple(_train(path, costs, found[way], devices[found[way]], kbit) for way in ("below", "above"))
                for kbit in links
            ]
            for _ in range(ROUNDS)
        ]
    points = []
    for kbit, of_link in zip(links, zip(*rounds, strict=True), strict=True):
        below_s, above_s = (statistics.median(way) for way in zip(*of_link, strict=True))
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
    """Where the seconds of the two ways are equal, by the least squares of the logarithm of their ratio.

    None where that is outside of what was measured, or the way that wins below is not the one that gains less above.
    """
    of_link = [math.log(kbit) for kbit, *_ in points]
    slope, offset = statistics.linear_regression(of_link, [math.log(below / above) for _, below, above in points])
    if slope <= 0 or not of_link[0] <= -offset / slope <= of_link[-1]:
        return None
    return math.exp(-offset / slope)


def _train(path: Path, costs: Path, name: str, num_devices: int, kbit: int) -> float:
    out = Path(tempfile.mkdtemp(dir=path.parent)) / "out"
    rate = f"{kbit}kbit" if num_devices > 1 else None
    run_verb("train", path, f"planner.costs={costs}", "--strategy", name, "--out", str(out), rate=rate)
    return step_times(out)["measured_s"]


if __name__ == "__main__":
    main()
