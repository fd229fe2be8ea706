"""The bandwidth at which the verdict turns: predicted, and measured on shaped links.

python -m scripts.benchmarks.crossing        prints, and writes docs/results/crossing.json

Two hosts (network namespaces) measure their costs over a link of one bandwidth. From these `plan --break-even` says at
which bandwidth another way becomes the fastest. Then both ways are trained over links around that bandwidth, in turns,
and where their seconds cross is read off a straight line through the logarithms of all. Others slow this machine down
for seconds: all is done three times, and medians count. The ways are one device, whose seconds do not depend on the
link, and two, with data parallel, which sends gradients, and a pipeline, which sends activations. Needs root and
iproute2; where namespaces are not permitted it says so and writes nothing.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.commands import run_verb, step_times, train_candidate
from scripts.benchmarks.replay import write_result
from scripts.benchmarks.rounds import ROUNDS
from scripts.benchmarks.verdicts import network

PROFILED_KBIT = 400_000
"""The link on which costs are measured. Far from it messages take other shares of the processors' time."""
AROUND = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Times the predicted bandwidth."""
BOUND = 0.20


def _experiment(strategy: str, num_microbatches: int) -> dict[str, Any]:
    planner = {"strategies": ["whole", strategy], "num_microbatches": [num_microbatches], "schedules": ["1f1b"]}
    return {**network(512, 8, 3072), "planner": planner}


EXPERIMENTS = {
    "one device and data parallel": _experiment("data_parallel", 2),
    "one device and a pipeline": _experiment("pipeline", 4),
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
        path = Path(folder) / "experiment.yaml"
        path.write_text(json.dumps(experiment), encoding="utf-8")
        predictions, devices = [], dict[str, int]()
        for turn in range(ROUNDS):
            costs = Path(folder) / f"costs-{turn}.json"
            run_verb("profile", path, "--costs-file", str(costs), rate=f"{PROFILED_KBIT}kbit")
            if not costs.exists():
                return None
            out = ("--out", str(Path(folder) / f"plan-{turn}"))
            planned = json.loads(run_verb("plan", path, f"planner.costs={costs}", "--break-even", *out))
            devices |= {one["name"]: one["num_devices"] for one in planned["candidates"]}
            predictions.append(predicted_crossing(planned, PROFILED_KBIT))
        crossings = [one["predicted_kbit"] for one in predictions]
        found = {"experiment": name, "profiled_kbit": PROFILED_KBIT, "predictions_kbit": crossings}
        if None in crossings:
            return {**found, **predictions[crossings.index(None)], "points": [], "measured_kbit": None, "error": None}
        prediction = sorted(predictions, key=lambda one: int(one["predicted_kbit"]))[ROUNDS // 2]
        ways = [(prediction[way], devices[prediction[way]]) for way in ("below", "above")]
        links = [round(prediction["predicted_kbit"] * factor) for factor in AROUND]
        rounds = [[_train_both(path, costs, ways, kbit) for kbit in links] for _ in range(ROUNDS)]
    points = []
    for kbit, of_link in zip(links, zip(*rounds, strict=True), strict=True):
        below_s, above_s = (statistics.median(way) for way in zip(*of_link, strict=True))
        points.append((kbit, below_s, above_s))
        print(f"    {kbit:9,} kbit/s: {below_s * 1e3:8.2f} and {above_s * 1e3:8.2f} ms", flush=True)
    measured = measured_crossing(points)
    error = None if measured is None else prediction["predicted_kbit"] / measured - 1
    return {**found, **prediction, "points": points, "measured_kbit": measured, "error": error}


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


def _train_both(path: Path, costs: Path, ways: list[tuple[str, int]], kbit: int) -> list[float]:
    """Seconds of a step of each way, by its name and its devices, one after the other."""
    folders = [train_candidate(path, costs, name, num_processes=count, rate=f"{kbit}kbit") for name, count in ways]
    return [step_times(out)["measured_s"] for out in folders]


if __name__ == "__main__":
    main()
