"""Problems made from figures and from clusters, and those that are refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from partition.config import ClusterConfig
from partition.costs import Chain, Cluster, LayerCost, build_cluster
from partition.errors import PartitionError
from partition.plan.chain_problem import alike_problem, check_problem, cluster_problem
from tests.plan.chains import random_chain

CHAIN = random_chain(random.Random(0), 6)


def cluster(*devices: dict[str, Any], **links: Any) -> Cluster:
    config = ClusterConfig.model_validate(
        {"devices": tuple({"kind": "simulated", **of} for of in devices), "links": links}
    )
    return build_cluster(config, "float32", needs_rates=False)


def test_devices_scale_the_table_by_their_compute() -> None:
    fast, slow = ({"memory_bytes": 100, "flop_per_s": {"default": rate}} for rate in (4e9, 1e9))
    places = cluster_problem(CHAIN, 2, 1, cluster(fast, slow)).places
    assert [(place.slowdown, place.limit_bytes) for place in places] == [(1.0, 100), (4.0, 100)]


def test_devices_without_compute_are_as_fast_as_the_one_measured() -> None:
    known, unknown = {"memory_bytes": 1, "flop_per_s": {"default": 4e9}}, {"memory_bytes": 1}
    for devices in ((known, unknown), (unknown, known)):
        assert [place.slowdown for place in cluster_problem(CHAIN, 2, 1, cluster(*devices)).places] == [1.0, 1.0]


def test_a_gpu_needs_no_rates_where_seconds_are_measured() -> None:
    places = cluster_problem(CHAIN, 1, 1, cluster({"kind": "cuda", "memory_bytes": 2**30})).places
    assert [place.name for place in places] == ["cuda:0"]
    # 3% of headroom and the context are not the table's to fill.
    assert 2**27 < places[0].limit_bytes < 2**28


def test_links_are_those_between_the_devices() -> None:
    links = {"intra_node": {"bytes_per_s": 8.0}, "inter_node": {"bytes_per_s": 2.0}, "devices_per_node": 2}
    problem = cluster_problem(CHAIN, 3, 1, cluster(*[{"memory_bytes": 1}] * 3, **links))
    assert [problem.bytes_per_s(0, 1), problem.bytes_per_s(1, 2)] == [8.0, 2.0]


@pytest.mark.parametrize(
    ("num_stages", "num_microbatches", "expected"),
    [
        (0, 1, "0 stages of 6 layers; take 1 to 6"),
        (7, 1, "7 stages of 6 layers; take 1 to 6"),
        (2, 0, "0 microbatches; take 1 to"),
        (2, 2**31, "2147483648 microbatches; take 1 to 1,073,741,824"),
    ],
)
def test_shapes_that_make_no_sense(num_stages: int, num_microbatches: int, expected: str) -> None:
    with pytest.raises(PartitionError, match=expected):
        check_problem(alike_problem(CHAIN, num_stages, num_microbatches))


def test_more_stages_than_devices_are_refused() -> None:
    with pytest.raises(PartitionError, match=r"3 stages, but 2 devices; take at most 2 stages"):
        check_problem(cluster_problem(CHAIN, 3, 1, cluster({"memory_bytes": 1}, {"memory_bytes": 1})))


def test_what_would_take_minutes_is_refused() -> None:
    layer = CHAIN.layers[0]
    with pytest.raises(PartitionError, match=r"6,000 layers are too many to split"):
        check_problem(alike_problem(Chain(source="t", layers=(layer,) * 6000), 4, 1))
    with pytest.raises(PartitionError, match=r"3,000 layers on 400 of 400 devices are too many to search"):
        check_problem(alike_problem(Chain(source="t", layers=(layer,) * 3000), 400, 1))


def test_a_memory_limit_needs_memory() -> None:
    bare = LayerCost(name="x", forward_s=1.0, backward_s=1.0, activation_bytes=1, parameter_bytes=1)
    check_problem(alike_problem(Chain(source="t", layers=(bare,)), 1, 1))
    with pytest.raises(PartitionError, match=r"t: has no column saved_bytes, without which a memory limit"):
        check_problem(alike_problem(Chain(source="t", layers=(bare,)), 1, 1, limit_bytes=5))


def test_a_bandwidth_of_next_to_nothing_is_refused() -> None:
    with pytest.raises(PartitionError, match=r"a bandwidth of 0.5 bytes per second is too small; the least is 1"):
        alike_problem(CHAIN, 2, 1, bytes_per_s=0.5)
    with pytest.raises(PartitionError, match="too small"):
        cluster_problem(CHAIN, 2, 1, cluster({"memory_bytes": 1}, intra_node={"bytes_per_s": 0.5}))
