"""Tables of layer costs that were taken from a network, and their experiments."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from partition.config import ChainConfig
from partition.costs import CostModel
from partition.plan import Candidate, Segment
from partition.plan.occupancy import held_bytes
from partition.plan.search import Search
from tests.plan.conftest import build_config

ROWS = 4


def export(search: Search, path: Path, without: tuple[str, ...] = ()) -> None:
    """Every layer of a network as a stage of its own."""
    model, device = search.model, search.cluster.devices[0]
    assert isinstance(model, CostModel)
    with path.open("w", newline="") as stream:
        rows = [_row(model, layer, device) for layer in range(model.num_layers)]
        writer = csv.DictWriter(stream, [key for key in rows[0] if key not in without], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _row(model: CostModel, layer: int, device: Any) -> dict[str, Any]:
    stage = model.stage(layer, layer)
    cost, static = stage.microbatch(ROWS), stage.static_bytes(1)
    return {
        "name": f"layer {layer}",
        "forward_s": repr(cost.forward.seconds(device)),
        "backward_s": repr(cost.backward.seconds(device)),
        "input_grad_s": repr(cost.input_grad.seconds(device)),
        "weight_grad_s": repr(cost.weight_grad.seconds(device)),
        "activation_bytes": cost.output_bytes,
        "parameter_bytes": static["parameters"],
        "optimizer_bytes": static["optimizer"],
        "saved_bytes": held_bytes(cost).kept,
    }


def chain_config(path: Path, **changes: Any) -> ChainConfig:
    """The chain of a file on the devices of the small experiment."""
    sections: dict[str, Any] = {
        "name": "chain",
        "model": {"costs": str(path), "microbatch_size": ROWS},
        "training": {"minibatch_size": 8 * ROWS},
        "cluster": build_config().cluster,
        "planner": {},
    }
    return ChainConfig.model_validate({**sections, **changes})


def network_search(activation: str, **planner: Any) -> Search:
    """Six layers of differing widths."""
    return Search(
        build_config(
            model={"hidden_features": (10, 9, 8, 7, 11), "activation": activation},
            training={"minibatch_size": 8 * ROWS},
            optimizer={"momentum": 0.9},
            planner=planner,
        )
    )


def candidates_with_layout(search: Search) -> list[Candidate]:
    return [one for one in search.candidates() if one.stages and one.num_replicas == 1]


def segments(candidate: Candidate) -> list[Segment]:
    return [Segment(stage.device_index, stage.first_layer, stage.last_layer) for stage in candidate.stages]


def write_table(folder: Path) -> Path:
    """The table of a network without activations, in which no tensor is kept by two layers."""
    path = folder / "chain.csv"
    export(network_search("identity"), path)
    return path
