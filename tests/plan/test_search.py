"""Plans of a table of layer costs: the same as of the network that the table was taken from."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest

from partition.config import ChainConfig
from partition.costs import ChainCosts, CostModel, build_cluster
from partition.errors import PartitionError
from partition.plan import Candidate, Layout, Segment, compare
from partition.plan.chain_problem import alike_problem
from partition.plan.compare import compare_with
from partition.plan.occupancy import held_bytes, rank_peak
from partition.plan.search import Search
from partition.plan.shape import Shape
from tests.plan.chains import random_chain, stage_bytes
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


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "chain.csv"
    export(network_search("identity"), path)
    return path


def test_a_network_and_its_table_cost_the_same(tmp_path: Path) -> None:
    """But for what a table has no column for: the optimizer step of the first stage, and workspace of kernels.

    Without an activation no tensor is kept by two layers, so the rows add up.
    """
    network = network_search("identity", num_microbatches=(8,), schedules=("gpipe", "1f1b", "zb_h1"),
                             strategies=("accumulate", "pipeline"))  # fmt: skip
    export(network, tmp_path / "chain.csv")
    chain = Search(chain_config(tmp_path / "chain.csv"))
    found = candidates_with_layout(network)
    assert len(found) == 10
    for of_network in found:
        of_chain = chain.price(Shape.of(of_network), segments(of_network))
        assert of_network.predicted is not None
        assert of_chain.predicted is not None
        first, devices = of_network.stages[0], network.cluster.devices
        step_s = network.costs.stage(first.first_layer, first.last_layer).step.seconds(devices[0])
        assert of_chain.predicted.step_s + step_s == pytest.approx(of_network.predicted.step_s, rel=1e-12)
        assert of_chain.predicted.communication_bytes == of_network.predicted.communication_bytes
        for one, other in zip(of_network.stages, of_chain.stages, strict=True):
            assert other.memory.workspace_bytes == 0
            assert other.memory.peak_bytes == one.memory.peak_bytes - one.memory.workspace_bytes, of_network.name


def test_where_two_layers_keep_one_tensor_rows_count_it_twice(tmp_path: Path) -> None:
    """ReLU keeps its output, which the next layer keeps as its input: a table of layers alone is on the safe side."""
    network = network_search("relu", num_microbatches=(8,), schedules=("1f1b",), strategies=("pipeline",))
    export(network, tmp_path / "chain.csv")
    chain = Search(chain_config(tmp_path / "chain.csv"))
    for of_network in candidates_with_layout(network):
        of_chain = chain.price(Shape.of(of_network), segments(of_network))
        for one, other in zip(of_network.stages, of_chain.stages, strict=True):
            assert other.memory.peak_bytes > one.memory.peak_bytes - one.memory.workspace_bytes


def test_what_a_table_is_planned_with(table: Path) -> None:
    """8 microbatches: accumulated, through pipelines of 2 to 4 devices, on 2 or 4 replicas, or fewer of them."""
    comparison = compare(chain_config(table))
    names = {candidate.name for candidate in comparison.candidates}
    assert {"accumulate-8", "pipeline-4x8-zb_h1", "pipeline-3x8-zbv", "data_parallel-4x2"} <= names
    assert {"hybrid-2x2x4-1f1b", "shrink-16", "shrink-8", "shrink-4"} <= names
    assert "whole" not in names
    assert not [name for name in names if name.startswith("sharded")]
    assert comparison.chosen is not None
    assert comparison.certificate is not None
    assert comparison.certificate.cost_source == "the table chain.csv"
    assert 0 < comparison.certificate.lower_bound_s <= comparison.chosen.predicted.step_s  # type: ignore[union-attr]
    assert "sharded parameters, which the table chain.csv cannot price" in comparison.not_considered
    assert "recomputation, which the table chain.csv cannot price" in comparison.not_considered
    sizes = {of.minibatch_size / of.num_microbatches / of.num_replicas for of in comparison.candidates}
    assert sizes == {ROWS}


def test_one_microbatch_is_the_whole_minibatch(table: Path) -> None:
    names = {of.name for of in Search(chain_config(table, training={"minibatch_size": ROWS})).candidates()}
    assert "whole" in names
    assert not [name for name in names if name.startswith(("accumulate", "shrink", "data_parallel", "hybrid"))]


def test_other_microbatches_are_infeasible_in_words(table: Path) -> None:
    found = Search(chain_config(table, planner={"num_microbatches": (4,)})).candidates()
    reasons = {of.name: of.reason for of in found}
    expected = "microbatches of 8 examples, but there are costs of 4 only; take num_microbatches = 8"
    assert reasons["accumulate-4"] == reasons["pipeline-2x4-1f1b"] == expected


def test_a_backward_in_one_piece_has_no_zero_bubble_schedules(table: Path) -> None:
    export(network_search("identity"), table, without=("input_grad_s", "weight_grad_s"))
    search = Search(chain_config(table))
    assert {of.schedule for of in search.candidates()} == {"1f1b", "gpipe", "interleaved_1f1b"}
    assert "zbv, which the table chain.csv cannot price" in compare_with(search).not_considered
    with pytest.raises(PartitionError, match=r"planner\.schedules: zb_h1 splits the backward, the table chain\.csv"):
        Search(chain_config(table, planner={"schedules": ("zb_h1",)}))
    shape = Shape(name="x", strategy="pipeline", minibatch_size=32, num_microbatches=8, num_ranks=2, num_stages=2,
                  schedule="zb_h2")  # fmt: skip
    with pytest.raises(PartitionError, match="zb_h2 splits the backward"):
        search.price(shape, [Segment(0, 0, 2), Segment(1, 3, 5)])


def test_a_table_without_memory_is_refused(table: Path) -> None:
    export(network_search("identity"), table, without=("saved_bytes",))
    with pytest.raises(
        PartitionError, match=r"has no column saved_bytes, without which the memory of cluster\.devices"
    ):
        Search(chain_config(table))


def test_a_table_has_no_network_to_run(table: Path) -> None:
    search = Search(chain_config(table))
    for attribute in ("config", "model", "network"):
        with pytest.raises(PartitionError, match="no network to run"):
            getattr(search, attribute)


def test_slower_devices_get_fewer_layers(table: Path) -> None:
    cluster = build_config().cluster
    fast, slow = (cluster.devices[0].model_copy(update={"flop_per_s": (("default", rate),)}) for rate in (1e9, 0.25e9))
    unlike = cluster.model_copy(update={"devices": (fast, slow)})
    planner = {"strategies": ("pipeline",), "schedules": ("1f1b",)}
    (found,) = Search(chain_config(table, cluster=unlike, planner=planner)).candidates()
    sizes = {stage.device_index: stage.last_layer - stage.first_layer for stage in found.stages}
    assert sizes[0] > sizes[1]


def test_split_and_plan_count_the_same_microbatches_in_flight() -> None:
    """What `split` counts is what 1F1B holds but for what is inside an action, and receives that are posted early."""
    for seed in range(20):
        chain = random_chain(random.Random(seed), 8)
        problem = alike_problem(chain, 3, 12, limit_bytes=10**9)
        costs = ChainCosts(chain, ROWS, build_cluster(build_config().cluster, "float32").devices[0])
        layout = Layout.of("1f1b", 3, (ROWS,) * 12)
        for stage, (first, last) in enumerate(((0, 2), (3, 5), (6, 7))):
            peak, _ = rank_peak([layout.occupancy(costs.stage(first, last))], layout.moments[stage])
            counted = stage_bytes(problem, stage, first, last)
            inside = 2 * max(layer.activation_bytes for layer in chain.layers)
            cuts = [cut for cut in (first - 1, last) if 0 <= cut < len(chain.layers) - 1]
            early = sum(chain.layers[cut].activation_bytes for cut in cuts)
            assert -inside <= peak - counted <= inside + early, seed
