"""How long `partition plan` takes, interpreter start included: 50, 1,000 and 10,000 layers on 8, 64 and 1,024 devices.

    python -m scripts.benchmarks.planner [--repeats 3]        prints every size, writes docs/results/planner.json

Each size is planned by fresh processes of one thread, twice over: a network of equal layers, and a table of unequal
ones. Of the repeats the fastest counts, and the words and plans of all of them must be the
same, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.benchmarks.replay import write_result

SIZES = ((50, 8, 1.0), (1000, 64, 2.0), (10_000, 1024, 15.0))
"""Layers, devices, seconds that are to be enough."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def network_text(layers: int, devices: int) -> str:
    """Equal layers of a million parameters."""
    return f"""
model: {{in_features: 1024, hidden_features: {{width: 1024, depth: {layers - 1}}}, out_features: 1024, loss: mse}}
data: {{source: synthetic}}
training: {{minibatch_size: 16384, steps: 10}}
optimizer: {{name: adam, lr: 1e-4}}
{cluster_text(devices)}"""


def table_text(devices: int) -> str:
    """Unequal layers, in 128 microbatches."""
    return f"""
model: {{costs: chain.csv, microbatch_size: 8}}
training: {{minibatch_size: 1024}}
{cluster_text(devices)}"""


def cluster_text(devices: int) -> str:
    """Alike devices, far larger than their share."""
    return f"""cluster:
  devices: {{count: {devices}, kind: simulated, memory: 80 GiB, compute: 10 TFLOP/s, memory_bandwidth: 500 GB/s}}
  links: {{bandwidth: 25 GB/s, latency: 5 us}}
"""


def chain_text(layers: int) -> str:
    """A table of unequal layers."""
    choose = random.Random(0)
    lines = ["name,forward_s,backward_s,activation_bytes,parameter_bytes,input_grad_s,weight_grad_s,saved_bytes"]
    for layer in range(layers):
        forward_s = round(choose.uniform(1e-4, 3e-4), 9)
        sizes = [choose.randint(10**5, 10**6), choose.randint(10**6, 10**7), choose.randint(10**5, 10**6)]
        lines.append(
            f"layer {layer},{forward_s},{2 * forward_s},{sizes[0]},{sizes[1]},{forward_s},{forward_s},{sizes[2]}"
        )
    return "\n".join(lines) + "\n"


def plan(config: Path, out: Path) -> tuple[float, int, bytes]:
    """Seconds, peak bytes and document of one process."""
    command = [sys.executable, "-m", "partition", "plan", str(config), "--out", str(out)]
    started = time.perf_counter()
    # As installed, where modules are compiled once: the first process of each folder does that, and is not the fastest.
    kept = {"PYTHONPYCACHEPREFIX": str(out.parent / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **ONE_THREAD, **kept}) as process:
        assert process.stdout is not None
        words = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{config}: exit code {process.returncode}")
    seconds = time.perf_counter() - started
    # The words end with where the plan has been written, which differs from run to run.
    return seconds, usage.ru_maxrss * 1024, words.partition(b"\nPlan written")[0] + (out / "plan.json").read_bytes()


def measure(folder: Path, kind: str, layers: int, devices: int, repeats: int) -> dict[str, Any]:
    """One size of one kind."""
    config = folder / f"{kind}{layers}.yaml"
    config.write_text(network_text(layers, devices) if kind == "network" else table_text(devices))
    (folder / "chain.csv").write_text(chain_text(layers))
    runs = [plan(config, folder / f"run{repeat}") for repeat in range(repeats)]
    hashes = {hashlib.sha256(document).hexdigest() for _, _, document in runs}
    if len(hashes) != 1:
        raise SystemExit(f"{config}: two runs gave different answers")
    words = runs[0][2].partition(b"\n\nGrounds: ")[2].partition(b"\n\n")[0].decode()
    return {
        "kind": kind,
        "layers": layers,
        "devices": devices,
        "seconds": min(seconds for seconds, _, _ in runs),
        "peak_bytes": max(peak for _, peak, _ in runs),
        "chosen": json.loads((folder / "run0" / "plan.json").read_text())["candidate"]["name"],
        "grounds": " ".join(words.split()),
        "runs_are_identical": True,
    }


def main() -> None:
    """Measure all sizes and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for layers, devices, target_s in SIZES:
            for kind in ("network", "table"):
                result = measure(Path(folder), kind, layers, devices, options.repeats)
                found.append({**result, "target_s": target_s})
                print(f"{kind:8} {layers:6} layers {devices:5} devices: {result['seconds']:6.2f} s "
                      f"(target {target_s} s), {result['peak_bytes'] / 2**20:.0f} MiB, {result['chosen']}")  # fmt: skip
    write_result("planner", "scripts/benchmarks/planner.py", found)


if __name__ == "__main__":
    main()
