"""Time and memory of replaying 1F1B, each size in a process of its own.

python -m scripts.benchmarks.replay                        prints, and writes docs/results/replay.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SIZES = ((4, 16), (64, 512), (256, 2048), (1024, 4096))
REPEATS = 3
RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def main() -> None:
    """Measure every size, or one if it is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs=2, type=int, metavar=("RANKS", "MICROBATCHES"))
    size = parser.parse_args().size
    if size:
        print(json.dumps(measure(*size)))
        return
    rows = [_measure_apart(ranks, microbatches) for ranks, microbatches in SIZES]
    for row in rows:
        print(
            f"{row['num_ranks']:5} ranks x {row['num_microbatches']:5} microbatches: "
            f"generate {row['generate_s']:.3f} s, replay {row['replay_s']:.3f} s, "
            f"{row['process_peak_bytes'] / 2**20:.0f} MiB, off the formula by {row['makespan_less_formula_s']} s"
        )
    write_result("replay", "scripts/benchmarks/replay.py", rows)


def measure(num_ranks: int, num_microbatches: int) -> dict[str, Any]:
    """Seconds of one core to write the rows as integers and to replay them, at the quickest of a few repeats."""
    from partition.schedule.fast.coded import generate_coded
    from partition.schedule.fast.estimate import estimate

    costs = _costs(num_ranks, num_microbatches)
    generating, replaying = [], []
    for _ in range(REPEATS if num_ranks * num_microbatches < 10**6 else 1):
        start = time.process_time()
        coded = generate_coded("1f1b", num_ranks=num_ranks, num_microbatches=num_microbatches)
        middle = time.process_time()
        figures = estimate(coded, costs)
        generating.append(middle - start)
        replaying.append(time.process_time() - middle)
    assert figures.peak_bytes == tuple(min(num_ranks - rank, num_microbatches) for rank in range(num_ranks))
    return {
        "schedule": "1f1b",
        "num_ranks": num_ranks,
        "num_microbatches": num_microbatches,
        "generate_s": min(generating),
        "replay_s": min(replaying),
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "makespan_less_formula_s": figures.makespan_s - 3.0 * (num_microbatches + num_ranks - 1),
    }


def _costs(num_ranks: int, num_microbatches: int) -> Any:
    from partition.schedule import Kind, ReplayCosts

    forward, backward, nothing = (((value,),) * num_ranks for value in (1.0, 2.0, 0.0))
    return ReplayCosts(
        size_class=(0,) * num_microbatches,
        seconds={Kind.F: forward, Kind.B: backward},
        send_forward_s=nothing,
        send_backward_s=nothing,
        net_bytes={Kind.F: ((1,),) * num_ranks, Kind.B: ((-1,),) * num_ranks},
    )


def _measure_apart(num_ranks: int, num_microbatches: int) -> dict[str, Any]:
    """Measure in a fresh process, so that its peak memory is that of this size alone."""
    command = [sys.executable, "-m", "scripts.benchmarks.replay", "--size", str(num_ranks), str(num_microbatches)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def write_result(name: str, script: str, rows: list[dict[str, Any]], machine: dict[str, Any] | None = None) -> None:
    """Write figures with the script that made them, the machine and the date."""
    document = {
        "script": script,
        "command": f"python -m {script.removesuffix('.py').replace('/', '.')}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine or describe_machine(),
        "rows": rows,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    import numpy

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
    }


if __name__ == "__main__":
    main()
