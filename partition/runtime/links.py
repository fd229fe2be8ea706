"""The links between processes, measured for the self-test in processes of its own.

python -m partition.runtime.links FILE KIND        (one of several processes that torchrun starts)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from partition.runtime.joining import join, leave
from partition.runtime.messages import measure_messages
from partition.runtime.process import Process
from partition.runtime.processes import ProcessWorld

SIZES_BYTES = (8, 1024, 16 * 1024, 256 * 1024, 4 * 2**20, 16 * 2**20)


def main(path: Path, kind: str) -> None:
    """Measure as one rank of several; the first writes what all know as JSON."""
    process = Process.of_environment()
    assert process is not None, "torchrun starts it"
    join(process, timeout_s=60)
    world = ProcessWorld(process, num_replicas=1, is_cuda=kind == "cuda", timeout_s=60)
    messages = measure_messages(world, SIZES_BYTES, tensor_bytes=SIZES_BYTES[:1])
    if process.rank == 0:
        found = {"way": world.way, "links": [link.model_dump(mode="json") for link in messages.links]}
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    world.close()
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
