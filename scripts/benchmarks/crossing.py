"""The bandwidth at which splitting and not splitting take the same time: predicted, and measured on shaped links.

python -m scripts.benchmarks.crossing        prints, and writes docs/results/crossing.json

Two hosts (network namespaces) measure their costs over a link of one bandwidth. From these `plan --break-even` says at
which bandwidth the verdict turns from one device to two or back. Then the way on two devices is trained over links
around that bandwidth, the way on one device once, and where their seconds cross is read off between the two
bandwidths on either side. Needs root and iproute2; where namespaces are not permitted it says so and writes nothing.
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
from scripts.benchmarks.verdicts import NETWORKS

PROFILED_KBIT = {"wide": 100_000, "between": 400_000}
"""The link on which costs are measured; the crossing is elsewhere."""
AROUND = (0.4, 0.63, 1.0, 1.6, 2.5)
"""Times the predicted bandwidth."""
ALONE = ("whole", "accumulate", "recompute")
"""Strategies of one device."""
BOUND = 0.20


def main() -> None:
    """Measure every network, print, write the result."""
    rows = []
    for name in PROFILED_KBIT:
        row = crossing(name)
        if row is None:
            print("two hosts cannot be made on this machine; nothing was measured")
            return
        rows.append(row)
        print("{network}: predicted {predicted_kbit} kbit/s ({alone} or {split}), measured {measured_kbit}, "
              "error {error}".format(**row), flush=True)  # fmt: skip
    write_result("crossing", "scripts/benchmarks/crossing.py", [{"bound": BOUND}, *rows])


def crossing(name: str) -> dict[str, Any] | None:
    """The predicted and the measured bandwidth of one network; None where there are no two hosts."""
    with tempfile.TemporaryDirectory(prefix="partition-crossing-") as folder:
        path, costs = Path(folder) / f"{name}.yaml", Path(folder) / "costs.json"
        path.write_text(json.dumps(NETWORKS[name]), encoding="utf-8")
        run_verb("profile", path, "--costs-file", str(costs), rate=f"{PROFILED_KBIT[name]}kbit")
        if not costs.exists():
            return None
        out = ("--out", str(Path(folder) / "plan"))
        planned = json.loads(run_verb("plan", path, f"planner.costs={costs}", "--break-even", *out))
        found: dict[str, Any] = {"network": name, "profiled_kbit": PROFILED_KBIT[name]}
        found |= predicted_crossing(planned, PROFILED_KBIT[name])
        if found["predicted_kbit"] is None:
            return {**found, "measured_kbit": None, "error": None}
        alone_s = _train(path, costs, found["alone"], None)
        points = [
            (kbit, _train(path, costs, found["split"], kbit))
            for kbit in (round(found["predicted_kbit"] * factor) for factor in AROUND)
        ]
    for kbit, split_s in points:
        print(f"    {name}, {kbit:9,} kbit/s: {found['split']} {split_s * 1e3:8.2f} ms, alone {alone_s * 1e3:8.2f} ms")
    measured = measured_crossing(points, alone_s)
    error = None if measured is None else found["predicted_kbit"] / measured - 1
    return {**found, "alone_s": alone_s, "points": points, "measured_kbit": measured, "error": error}


def predicted_crossing(planned: dict[str, Any], profiled_kbit: int) -> dict[str, Any]:
    """The nearest bandwidth at which the verdict turns between one device and several, and the two ways there."""
    chosen = next(one for one in planned["candidates"] if one["name"] == planned["chosen"])
    for flip in planned["break_even"]["link_bandwidth"]:
        ways = {one["strategy"] in ALONE: name for one, name in ((chosen, chosen["name"]), (flip, flip["candidate"]))}
        if len(ways) == 2 and None not in ways.values():
            kbit = round(profiled_kbit * flip["factor"])
            return {"predicted_kbit": kbit, "alone": ways[True], "split": ways[False]}
    return {"predicted_kbit": None, "alone": None, "split": None, "chosen": chosen["name"]}


def measured_crossing(points: list[tuple[int, float]], alone_s: float) -> float | None:
    """Where the seconds over the link pass those of one device, on a straight line between logarithms."""
    for (slow, slow_s), (fast, fast_s) in itertools.pairwise(points):
        if (slow_s > alone_s) != (fast_s > alone_s):
            part = math.log(slow_s / alone_s) / math.log(slow_s / fast_s)
            return slow * (fast / slow) ** part
    return None


def _train(path: Path, costs: Path, name: str, kbit: int | None) -> float:
    out = path.parent / f"{name}-{kbit}"
    rate = None if kbit is None else f"{kbit}kbit"
    run_verb("train", path, f"planner.costs={costs}", "--strategy", name, "--out", str(out), rate=rate)
    return float(json.loads((out / "summary.json").read_text(encoding="utf-8"))["step_time"]["measured_s"])


if __name__ == "__main__":
    main()
