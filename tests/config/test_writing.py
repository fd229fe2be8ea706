"""Written and read again, an experiment is equal."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from partition.config import (
    ClusterConfig,
    DataConfig,
    DeviceConfig,
    ExperimentConfig,
    LinkConfig,
    LinksConfig,
    ModelConfig,
    OptimizerConfig,
    PlannerConfig,
    PrecisionConfig,
    TrainingConfig,
    dump_config,
    load_config,
    resolve,
)

CONFIGS = Path(__file__).parents[2] / "configs"

sizes = st.integers(1, 2**16)
positive = st.floats(1e-12, 1e20)
rates = st.one_of(positive, st.sampled_from([25e9, 1e11, 12.5e9, 1.0]))
rate_tables = st.dictionaries(st.sampled_from(["float32", "float64", "float16"]), rates).map(
    lambda table: tuple(sorted({"default": 1e9, **table}.items()))
)
names = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Z")), min_size=1, max_size=20)

devices = st.builds(
    DeviceConfig,
    name=st.none() | names | st.sampled_from(["no", "012", "1e3", "~", "null", "0o17", "a: b", "# x", "<<"]),
    kind=st.sampled_from(["cpu", "cuda"]),
    memory_bytes=st.none() | st.integers(1, 2**60) | st.integers(1, 1000).map(lambda n: n * 2**20),
    flop_per_s=st.none() | rate_tables,
    memory_bytes_per_s=st.none() | rates,
)
links = st.builds(LinkConfig, bytes_per_s=rates, latency_s=st.floats(0, 3600) | st.sampled_from([0, 5e-6, 20e-6]))
networks = st.one_of(
    st.builds(LinksConfig),
    st.builds(LinksConfig, intra_node=links),
    st.builds(LinksConfig, intra_node=links, inter_node=links, devices_per_node=st.integers(1, 8)),
)
optimizers = st.one_of(
    st.builds(OptimizerConfig, lr=positive, momentum=st.floats(0, 0.99)),
    st.builds(OptimizerConfig, name=st.just("adam"), lr=positive, betas=st.just((0.8, 0.99)), eps=positive),
    st.builds(OptimizerConfig, name=st.just("adamw"), lr=positive, weight_decay=st.just(0.0) | positive),
)
some_sizes = st.none() | st.lists(sizes, min_size=1, max_size=4, unique=True).map(tuple)
experiments = st.builds(
    ExperimentConfig,
    name=st.just("experiment"),
    model=st.builds(
        ModelConfig,
        in_features=sizes,
        hidden_features=st.lists(sizes, max_size=4).map(tuple) | sizes.map(lambda size: (size,) * 5),
        out_features=sizes,
        l2_penalty=st.just(0.0) | positive,
    ),
    precision=st.builds(PrecisionConfig, compute=st.sampled_from(["float32", "float64"])),
    data=st.builds(DataConfig, source=st.just("synthetic"), num_examples=st.none() | st.integers(2, 10**6)),
    training=st.one_of(
        st.builds(TrainingConfig, minibatch_size=sizes, epochs=st.none() | sizes, seed=st.integers(0, 2**40 - 1)),
        st.builds(TrainingConfig, minibatch_size=sizes, steps=sizes),
    ),
    optimizer=optimizers,
    cluster=st.builds(ClusterConfig, devices=st.lists(devices, min_size=1, max_size=4).map(tuple), links=networks)
    | st.builds(
        ClusterConfig,
        devices=devices.filter(lambda device: device.kind == "cuda").map(lambda device: (device,)),
        headroom=st.none() | st.floats(0, 0.9),
        context_bytes=st.none() | st.integers(0, 2**30) | st.integers(1, 1000).map(lambda n: n * 2**20),
    ),
    planner=st.builds(
        PlannerConfig,
        strategies=st.none() | st.just(("shrink", "pipeline")),
        schedules=st.none() | st.just(("1f1b",)),
        num_stages=some_sizes,
        minibatch_sizes=some_sizes,
    ),
)


@settings(deadline=None)
@given(config=experiments)
def test_any_experiment_survives_being_written(load: Any, config: ExperimentConfig) -> None:
    again = load(dump_config(config))
    assert again == config
    assert again.cluster.links.is_default == config.cluster.links.is_default


@settings(deadline=None)
@given(config=experiments)
def test_what_is_resolved_is_plain_yaml_for_any_reader(load: Any, config: ExperimentConfig) -> None:
    assert yaml.safe_load(dump_config(config)) is not None
    assert load(yaml.safe_dump(resolve(config.model_copy(update={"cluster": PLAIN})))).model == config.model


PLAIN = ClusterConfig(devices=(DeviceConfig(kind="cpu"),))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_experiments_survive_being_written(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    (tmp_path / path.name).write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / path.name) == config


def test_defaults_are_written_out_and_quantities_keep_their_units(load: Any, right: str) -> None:
    resolved = resolve(load(right, ["cluster.links={bandwidth: 25 GB/s, latency: 5 us}", "cluster.devices.count=3"]))
    assert resolved["training"] == {"minibatch_size": 6, "epochs": 1, "seed": 0, "noise": False, "timeout": "60 s"}
    assert resolved["optimizer"] == {
        "name": "sgd",
        "lr": 0.1,
        "momentum": 0.0,
        "lr_schedule": "constant",
        "lr_final": 0.0,
        "warmup_steps": 0,
    }
    assert resolved["model"]["hidden_features"] == {"width": 8, "depth": 2}
    assert resolved["cluster"] == {
        "devices": {"count": 3, "kind": "simulated", "memory": "1 MiB"},
        "links": {"bandwidth": "25 GB/s", "latency": "5 us"},
    }


def test_assumed_links_are_not_written_as_if_said(load: Any) -> None:
    assert "links" not in resolve(load())["cluster"]


def test_what_no_unit_shows_exactly_is_written_in_base_units(load: Any) -> None:
    devices = resolve(load(overrides=["cluster.devices.memory=1234567891"]))["cluster"]["devices"]
    assert devices["memory"] == 1234567891
