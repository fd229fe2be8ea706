"""Overrides: where they land, what they replace, and what they are called when they are wrong."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partition.errors import ConfigError


def test_values_are_yaml(load: Any) -> None:
    overrides = ["training.minibatch_size=250", "model.hidden_features=[64,64]", "cluster.devices.count=2"]
    config = load(overrides=[*overrides, "optimizer.lr=1e-3", "model.bias=false", "cluster.devices.memory=2 MiB"])
    assert config.training.minibatch_size == 250
    assert config.model.hidden_features == (64, 64)
    assert [device.memory_bytes for device in config.cluster.devices] == [2 * 2**20] * 2
    assert config.optimizer.lr == 1e-3
    assert not config.model.bias


def test_the_last_one_wins(load: Any) -> None:
    assert load(overrides=["training.seed=1", "training.seed=2"]).training.seed == 2


def test_sections_are_made_where_missing(load: Any, right: str) -> None:
    assert load(overrides=["planner.num_stages=[1, 2]", "planner.schedules=1f1b"]).planner.num_stages == (1, 2)
    assert load(right + "planner:\n", ["planner.num_stages=3"]).planner.num_stages == (3,)


def test_list_items_are_addressed_by_index(load: Any, right: str) -> None:
    text = right[: right.index("  devices")] + "  devices: [{kind: cpu}, {kind: cpu}]\n"
    devices = load(text, ["cluster.devices.1.memory=3 MiB"]).cluster.devices
    assert [device.memory_bytes for device in devices] == [None, 3 * 2**20]


def test_null_removes_a_key(load: Any, right: str) -> None:
    text = right.replace("lr: 0.1", "{lr: 0.1, momentum: 0.9}").replace("optimizer:\n  ", "optimizer: ")
    assert load(text).optimizer.momentum == 0.9
    assert load(text, ["optimizer.name=adam", "optimizer.momentum=null"]).optimizer.name == "adam"
    assert load(text, ["model.absent=null"]) == load(text)


def test_steps_replace_the_epochs_of_the_file(load: Any, right: str) -> None:
    """Asking for five steps of an experiment that says epochs would otherwise take two overrides."""
    text = right.replace("minibatch_size: 6", "minibatch_size: 6\n  epochs: 3")
    training = load(text, ["training.steps=5"]).training
    assert (training.epochs, training.steps) == (None, 5)
    assert load(text, ["training.steps=null"]).training.epochs == 3


def test_steps_and_epochs_both_overridden_are_a_conflict(problems: Any) -> None:
    found = problems(overrides=["training.steps=5", "training.epochs=3"])
    assert found == ["override 'training.steps=5': training.steps: and epochs are both given; keep one of them"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("x", "override 'x': write it key.path=value"),
        ("=3", "override '=3': write it key.path=value"),
        ("a..b=3", "override 'a..b=3': write it key.path=value"),
        ("model.bias=", "override 'model.bias=': model.bias: has no value"),
        ("model.bias=[", "override 'model.bias=[': model.bias: not valid YAML at column 2"),
        ("model.bias=*x", "override 'model.bias=*x': model.bias: the alias 'x' stands for nothing"),
        ("model.bias=yes", "override 'model.bias=yes': model.bias: 'yes' is not true or false"),
        (
            "training.batch_size=5",
            "override 'training.batch_size=5': training.batch_size: unknown key; use training.mini",
        ),
        ("optimizer.lr.x=5", "override 'optimizer.lr.x=5': optimizer.lr.x: optimizer.lr is 0.1, which has no keys"),
        ("training={epochs: 3}", "override 'training={epochs: 3}': training.minibatch_size: is missing"),
        ("cluster.devices=[]", "override 'cluster.devices=[]': cluster.devices: the list is too short"),
        (
            "model.hidden_features.2=5",
            "override 'model.hidden_features.2=5': model.hidden_features.2: model.hidden_feature",
        ),
        (
            "model.hidden_features.²=5",
            "override 'model.hidden_features.²=5': model.hidden_features.²: model.hidden_feature",
        ),
        (".".join("a" * 5000) + "=1", "override 'a.a.a.a"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str, problems: Any) -> None:
    found = problems(overrides=[override])
    assert len(found) == 1
    assert found[0].startswith(message)


def test_errors_of_file_and_overrides_are_told_together(problems: Any, right: str) -> None:
    found = problems(right.replace("lr: 0.1", "lr: -1"), ["model.bias=5", "y"])
    assert [text.split(":")[0] for text in found] == ["10", "override 'y'", "override 'model.bias=5'"]


def test_the_empty_key_is_a_key_like_any_other(problems: Any, right: str) -> None:
    """An empty key in the file was once taken for the rival of every override."""
    assert len(problems(right + '"": 1\n', ["model.bias=true"])) == 1


@settings(deadline=None)
@given(st.lists(st.text(max_size=30) | st.from_regex(r"\A(model|cluster)\.[a-z_.0-9]{0,20}=.{0,9}\Z"), max_size=4))
def test_any_overrides_are_taken_or_refused(load: Any, overrides: list[str]) -> None:
    try:
        load(overrides=overrides)
    except ConfigError as error:
        assert str(error)  # noqa: PT017
