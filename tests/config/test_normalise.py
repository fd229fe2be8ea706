"""One shape for the several ways of saying a thing."""

from typing import Any

import pytest

from partition.config import DeviceConfig, LinkConfig


def with_devices(right: str, devices: str) -> str:
    return right[: right.index("  devices")] + f"  devices: {devices}\n"


def test_width_and_depth_are_a_list(load: Any, right: str) -> None:
    assert load(right.replace("[8, 8]", "{width: 8, depth: 2}")) == load(right)
    assert load(right.replace("[8, 8]", "{width: 8, depth: 0}")) == load(right.replace("[8, 8]", "[]"))
    assert len(load(right.replace("[8, 8]", "{width: 1, depth: 100000}")).model.hidden_features) == 100_000


@pytest.mark.parametrize(
    ("hidden", "messages"),
    [
        ("{width: 8}", ["3: model.hidden_features.depth: is missing; add it, for example `depth: 6`"]),
        ("{width: 0, depth: 2}", ["3: model.hidden_features.width: 0 is too small; the least is 1"]),
        ("{width: 8, depth: 100001}", ["3: model.hidden_features.depth: 100001 is too large; the most is 100000"]),
        (
            "{width: true, depth: 2.5}",
            [
                "3: model.hidden_features.width: true is not a whole number",
                "3: model.hidden_features.depth: 2.5 is not a whole number",
            ],
        ),
        ("{width: 8, deep: 3}", ["3: model.hidden_features.deep: unknown key; did you mean 'depth'?"]),
        ("8", ["3: model.hidden_features: 8 is not a list; write it like [1024, 1024]"]),
    ],
)
def test_wrong_widths_and_depths(hidden: str, messages: list[str], problems: Any, right: str) -> None:
    found = problems(right.replace("[8, 8]", hidden))
    assert found[: len(messages)] == messages


def test_a_mapping_of_devices_is_repeated_by_its_count(load: Any, right: str) -> None:
    text = "{count: 3, kind: cpu, memory: 1 GiB, compute: 5 GFLOP/s, memory_bandwidth: 20 GB/s}"
    device = DeviceConfig(kind="cpu", memory_bytes=2**30, flop_per_s=(("default", 5e9),), memory_bytes_per_s=20e9)
    assert load(with_devices(right, text)).cluster.devices == (device,) * 3


def test_devices_of_a_list_are_repeated_each(load: Any, right: str) -> None:
    devices = load(
        with_devices(right, "[{name: A, count: 2}, {kind: cpu}, {name: B, kind: simulated}]")
    ).cluster.devices
    assert [(device.name, device.kind) for device in devices] == [
        ("A", "cuda"),
        ("A", "cuda"),
        (None, "cpu"),
        ("B", "simulated"),
    ]


def test_compute_by_number_format(load: Any, right: str) -> None:
    text = "{kind: cpu, compute: {float32: 2 TFLOP/s, float64: 1 TFLOP/s}}"
    device = load(with_devices(right, text)).cluster.devices[0]
    assert device.flop_per_s == (("float32", 2e12), ("float64", 1e12))


@pytest.mark.parametrize(
    ("devices", "key", "message"),
    [
        ("auto", "", "'auto' is not a list; write it like {count: 4"),
        ("4", "", "4 is not a list; write it like {count: 4"),
        ("[]", "", "the list is too short; write it like {count: 4"),
        ("[A]", ".0", "'A' is not a section with keys"),
        ("{count: 1025, kind: cpu}", ".count", "1025 is too large; the most is 1024"),
        ("{count: two, kind: cpu}", ".count", "'two' is not a whole number"),
        ("[{count: 1000, kind: cpu}, {count: 25, kind: cpu}]", "", "1025 devices in all are too many"),
        ("{count: 2, memory: 1 GiB}", ".kind", "is missing; add it, for example `kind: simulated`"),
        ("{kind: gpu}", ".kind", "'gpu' is not available; choose simulated, cpu or cuda"),
        ("{kind: simulated, count: 4}", ".memory", "is missing; a simulated device needs a limit"),
        ("{kind: simulated, memory: much}", ".memory", "'much' is not a size"),
        ("{kind: simulated, memory: 0}", ".memory", "0 is too small; the least is 1"),
        ("{kind: simulated, memory: [1]}", ".memory", "a list is not a quantity"),
        ("{kind: cpu, memory: 2000000 TiB}", ".memory", "2000000 TiB is too large"),
        ("{kind: cpu, compute: 5}", "", ""),
        ("{kind: cpu, compute: 0}", ".compute", "0 is too small; it must be more than 0"),
        ("{kind: cpu, compute: {}}", ".compute", "the list is too short; write it like 100 GFLOP/s"),
        ("{kind: cpu, compute: {float16: 1 TFLOP/s}}", ".compute", "has no figure for float32"),
        ("{kind: cpu, compute: {float33: 1 TFLOP/s}}", ".compute.float33", "unknown key; did you mean 'float32'?"),
        ("{kind: cpu, compute: {float32: fast}}", ".compute.float32", "'fast' is not a compute rate"),
        ("{kind: cpu, memory_bandwidth: 5 GB}", ".memory_bandwidth", "'5 GB' is not a data rate"),
        ("{name: 5}", ".name", "5 is not text; put it in quotes"),
    ],
)
def test_wrong_devices(devices: str, key: str, message: str, problems: Any, load: Any, right: str) -> None:
    text = with_devices(right, devices)
    if not message:
        assert load(text).cluster.devices[0].flop_per_s == (("default", 5.0),)
        return
    found = problems(text)
    assert found[0].startswith(f"12: cluster.devices{key}: ")
    assert message in found[0]


def test_a_mistake_in_a_repeated_device_is_told_once(problems: Any, right: str) -> None:
    assert problems(with_devices(right, "{count: 1000, kind: tpu}")) == [
        "12: cluster.devices.kind: 'tpu' is not available; choose simulated, cpu or cuda"
    ]


def test_flat_links_are_those_within_a_node(load: Any, right: str) -> None:
    links = load(right + "  links: {bandwidth: 100 Gbit/s, latency: 5 us}\n").cluster.links
    assert links.intra_node == LinkConfig(bytes_per_s=12.5e9, latency_s=5e-6)
    assert links.inter_node is None
    assert not links.is_default


def test_half_a_link_takes_the_default_for_the_rest(load: Any, right: str) -> None:
    assert load(right + "  links: {latency: 1 ms}\n").cluster.links.intra_node == LinkConfig(
        bytes_per_s=10e9, latency_s=1e-3
    )


def test_links_between_nodes(load: Any, right: str) -> None:
    nested = "{intra_node: {bandwidth: 450 GB/s}, inter_node: {bandwidth: 25 GB/s}, devices_per_node: 8}"
    links = load(right + f"  links: {nested}\n").cluster.links
    assert links.between(0, 7).bytes_per_s == 450e9
    assert links.between(7, 8).bytes_per_s == 25e9


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ("5", "15: cluster.links: 5 is not a section with keys"),
        ("{bandwidth: 0}", "15: cluster.links.bandwidth: 0 is too small; it must be more than 0"),
        ("{latency: -1 us}", "15: cluster.links.latency: '-1 us' is negative"),
        ("{latency: 2 h}", "15: cluster.links.latency: 2 h is too large; the most is 3600"),
        ("{bandwidth: 1, intra_node: {}}", "15: cluster.links: holds bandwidth beside intra_node"),
        ("{inter_node: {bandwidth: 1}}", "15: cluster.links.devices_per_node: is missing"),
        ("{devices_per_node: 8}", "15: cluster.links.inter_node: is missing"),
        (
            "{intra_node: 5}",
            "15: cluster.links.intra_node: 5 is not a section with keys; write it like {bandwidth: 450",
        ),
        ("{is_default: true}", "15: cluster.links.is_default: unknown key"),
    ],
)
def test_wrong_links(links: str, message: str, problems: Any, right: str) -> None:
    found = problems(right + f"  links: {links}\n")
    assert len(found) == 1
    assert found[0].startswith(message)


def test_single_values_of_the_planner_are_lists(load: Any, right: str) -> None:
    text = "planner: {num_stages: 2, strategies: pipeline, schedules: [1f1b], minibatch_sizes: [3, 6]}\n"
    planner = load(right + text).planner
    assert (planner.num_stages, planner.strategies, planner.schedules) == ((2,), ("pipeline",), ("1f1b",))
    assert planner.minibatch_sizes == (3, 6)
