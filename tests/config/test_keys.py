"""Which keys a file may hold: the schema's, by the names that carry no unit."""

from typing import Any

import pytest

from partition.config.keys import SCHEMA_NAMES, VOCABULARY
from partition.config.schema import ClusterConfig, DeviceConfig, ExperimentConfig, LinkConfig, LinksConfig


def in_schema(section: str) -> set[str]:
    return {SCHEMA_NAMES.get(key, key) for key in VOCABULARY[section]}


def test_the_vocabulary_is_the_schema() -> None:
    assert in_schema("") == ExperimentConfig.model_fields.keys() - {"name"}
    assert in_schema("cluster") == set(ClusterConfig.model_fields)
    assert in_schema("cluster.devices") == DeviceConfig.model_fields.keys() | {"count"}
    assert in_schema("cluster.links") == LinksConfig.model_fields.keys() | LinkConfig.model_fields.keys()
    assert in_schema("cluster.links.intra_node") == set(LinkConfig.model_fields)
    assert in_schema("cluster.links.inter_node") == set(LinkConfig.model_fields)


@pytest.mark.parametrize("key", ["memory_bytes", "flop_per_s", "memory_bytes_per_s"])
def test_names_with_units_are_not_keys_of_a_file(key: str, problems: Any, right: str) -> None:
    """The schema would take them, so a file could by-pass the units."""
    found = problems(right + f"    {key}: 5\n")
    assert len(found) == 1
    assert found[0].startswith(f"15: cluster.devices.{key}: unknown key; use cluster.devices.")


def test_a_key_without_a_value_is_told(problems: Any, right: str) -> None:
    found = problems(right.replace("lr: 0.1", "lr:"))
    assert found == ["10: optimizer.lr: has no value; write one after the colon, or remove the key"]


@pytest.mark.parametrize("section", ["precision", "checkpoint", "planner"])
def test_an_optional_section_may_be_empty(section: str, load: Any, right: str) -> None:
    assert load(right + f"{section}:\n") == load(right)


def test_links_may_be_empty(load: Any, right: str) -> None:
    assert load(right + "  links:\n").cluster.links.is_default


def test_the_name_is_not_a_key(problems: Any, right: str) -> None:
    assert problems(right + "name: x\n") == ["15: name: unknown key; the experiment is named after its file; remove it"]


def test_thousands_of_unknown_keys_are_told_quickly_and_in_part(problems: Any) -> None:
    found = problems("".join(f"minibatch{i}: 1\n" for i in range(9_000)))
    assert len(found) == 101
    assert found[-1].endswith("more problems")
