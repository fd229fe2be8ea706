"""Arguments of Python callers: the right ones pass, each wrong one is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import partition
from partition.config import ExperimentConfig
from partition.config.arguments import check_name, check_overrides, check_path
from partition.errors import PartitionError

CONFIG = Path(__file__).parent.parent.parent / "configs/digits.yaml"


@pytest.mark.parametrize("path", [None, 5, b"a.yaml", [], 1.5, True])
def test_a_path_is_text_or_a_path(path: Any) -> None:
    with pytest.raises(PartitionError, match=r"^an experiment is read from a path as text or pathlib.Path, got \w+; "):
        partition.load_config(path)
    assert check_path(Path("a.yaml")) == check_path("a.yaml") == "a.yaml"


@pytest.mark.parametrize("overrides", ["training.epochs=2", b"a", None, 5, [5], [None], [b"a=1"], [("a", "b")]])
def test_overrides_are_texts_in_a_list(overrides: Any) -> None:
    """One text was taken letter by letter, and answered in a line for every letter."""
    with pytest.raises(PartitionError) as caught:
        partition.load_config(CONFIG, overrides=overrides)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith('; give a list of texts, as ["training.minibatch_size=250"]')


def test_overrides_may_come_one_at_a_time() -> None:
    assert check_overrides(text for text in ("a=1", "b=2")) == ("a=1", "b=2")
    one_by_one: Any = (text for text in ("training.epochs=2",))
    config = partition.load_config(CONFIG, one_by_one)
    assert isinstance(config, ExperimentConfig)
    assert config.training.epochs == 2


@pytest.mark.parametrize("name", [5, "\n", b"a", ["a"]])
def test_a_name_is_printable_text(name: Any) -> None:
    with pytest.raises(PartitionError, match=r"^the name of an experiment is .*; give printable text"):
        partition.load_config(CONFIG, name=name)
    assert (check_name(None), check_name("a")) == (None, "a")


@pytest.mark.parametrize("config", [None, "configs/digits.yaml", {}, 5])
def test_what_is_compared_is_an_experiment(config: Any) -> None:
    with pytest.raises(PartitionError, match=r"^an experiment is wanted, got \w+; give what load_config"):
        partition.compare(config)
