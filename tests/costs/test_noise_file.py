"""Files of measured gradient noise: written, read back, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from partition.config import ChainConfig, ExperimentConfig
from partition.config.model import LARGEST_CLASS_COUNT
from partition.costs.noise import Parts, estimate_noise
from partition.costs.noise_file import LARGEST_FILE_BYTES, GradientNoise, noise_of_run, read_noise
from partition.errors import PartitionError


def build_config(**model: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({
        "name": "small",
        "model": {"in_features": 4, "hidden_features": (5, 5), "out_features": 3, **model},
        "data": {"source": "synthetic"},
        "training": {"minibatch_size": 8, "noise": True},
        "optimizer": {"lr": 0.1},
        "cluster": {"devices": ({"kind": "simulated", "memory_bytes": 2**20},)},
    })  # fmt: skip


def measured(is_known: bool = True) -> GradientNoise:
    estimate = estimate_noise([Parts(4.0, 2.0 if is_known else -2.0)] * 9, 100)
    return noise_of_run(estimate, build_config(), minibatch_size=8, num_examples=100, learning_rate=0.1)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a noise file with some keys replaced, or the text given."""

    def write(text: str | None = None, **changes: Any) -> str:
        document = {**measured().model_dump(mode="json"), **changes}
        path = tmp_path / "noise.json"
        path.write_text(json.dumps(document) if text is None else text)
        return str(path)

    return write


@pytest.mark.parametrize("is_known", [True, False])
def test_what_is_written_is_read_back(write: Callable[..., str], is_known: bool) -> None:
    noise = measured(is_known)
    assert noise.identifiable is is_known
    assert read_noise(write(json.dumps(noise.model_dump(mode="json")))) == noise


def test_the_same_experiment_is_no_other() -> None:
    assert list(measured().differences(build_config())) == []


def test_of_a_table_of_costs_nothing_can_be_said() -> None:
    chain = ChainConfig.model_validate({
        "name": "chain",
        "model": {"costs": "chain.csv", "microbatch_size": 4},
        "training": {"minibatch_size": 8},
        "cluster": {"devices": ({"kind": "simulated", "memory_bytes": 2**20},)},
    })  # fmt: skip
    assert list(measured().differences(chain)) == []


def test_another_experiment_is_told_apart_by_its_keys() -> None:
    other = build_config(activation="gelu", hidden_features=(5, 6))
    found = list(measured().differences(other))
    assert found[0] == "model.activation 'relu', here 'gelu'"
    assert found[1].startswith("model.hidden_features {'width': 5, 'depth': 2}, here [5, 6]")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"b_noise": -1.0}, "b_noise: -1.0 is too small; the least is 0"),
        ({"b_noise": None}, "b_noise or an end of interval is missing"),
        ({"b_noise": "3"}, 'b_noise: "3" is not valid here'),
        ({"interval": None}, "an end of interval is missing"),
        ({"interval": [1.0, None]}, "an end of interval is missing"),
        ({"interval": [3.0, 1.0]}, "interval is empty"),
        ({"interval": [3.0, 4.0]}, "lies outside it"),
        ({"identifiable": False}, "there is a b_noise"),
        ({"schema_version": 2}, "schema_version"),
        ({"tr_sigma": float("nan")}, "tr_sigma"),
        ({"num_examples": 0}, "num_examples"),
        ({"surplus": 1}, "surplus: is not known"),
    ],
)
def test_what_makes_no_sense_is_refused(write: Callable[..., str], changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(PartitionError, match=problem) as caught:
        read_noise(write(**changes))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("planner.noise: ")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, "\x00", "x" * (LARGEST_FILE_BYTES + 1)])
def test_what_is_no_noise_file_is_refused_in_one_line(write: Callable[..., str], text: str) -> None:
    with pytest.raises(PartitionError, match="noise file") as caught:
        read_noise(write(text))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(PartitionError, match=r"training\.noise=true writes noise\.json"):
            read_noise(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identifiable": False, "b_noise": None, "reason": ""}, "identifiable is false, but there is no reason"),
        ({"reason": "a\nb"}, "holds what is not printable"),
        ({"data_source": "\x1b[31m"}, "holds what is not printable"),
        ({"optimizer": "sgd\r"}, "holds what is not printable"),
    ],
)
def test_words_that_a_person_could_not_read_are_refused(
    write: Callable[..., str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PartitionError, match=message):
        read_noise(write(**changes))


def test_the_noise_of_the_most_classes_is_read_back(write: Callable[..., str]) -> None:
    model = {"class_weights": [0.1234567890123456] * LARGEST_CLASS_COUNT}
    text = json.dumps({**measured().model_dump(mode="json"), "model": model}, indent=1)
    assert read_noise(write(text)).model == model
