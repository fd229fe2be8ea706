"""Keys of data: whose they are, which need each other, and from where a path starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from partition.config import DataConfig, dump_config, load_config, resolve
from partition.config.data import KEYS_OF_SOURCE

RIGHT: dict[str, dict[str, Any]] = {
    "mnist5k": {},
    "digits": {"standardise": "each"},
    "diabetes": {"standardise_targets": False, "test_fraction": 0.3},
    "synthetic": {"num_examples": 5},
    "idx": {"path": "/a"},
    "npy": {"path": "/a", "targets_path": "/b", "test_path": "/c", "test_targets_path": "/d"},
    "npz": {"path": "/a", "features_key": "x_train", "test_features_key": "t", "test_targets_key": "u"},
    "csv": {"path": "/a", "target": ("price", "3"), "delimiter": ";", "header": True},
    "torch": {"dataset": "a:B", "arguments": {"root": "d", "train": True, "n": None, "size": (28, 28)}},
}


def keys_of(error: ValidationError) -> str:
    return " ".join(one["msg"] for one in error.errors())


def test_every_source_has_an_example_here() -> None:
    assert RIGHT.keys() == KEYS_OF_SOURCE.keys()
    assert {key for keys in KEYS_OF_SOURCE.values() for key in keys} == DataConfig.model_fields.keys() - {"source"}


@pytest.mark.parametrize("source", list(RIGHT))
def test_a_source_takes_its_keys_and_can_be_hashed(source: str) -> None:
    config = DataConfig.model_validate({"source": source, **RIGHT[source]})
    assert hash(config) == hash(config.model_copy())


@pytest.mark.parametrize("source", list(RIGHT))
def test_what_is_written_reads_back_equal(source: str, load: Any, right: str) -> None:
    config = load(right).model_copy(update={"data": DataConfig.model_validate({"source": source, **RIGHT[source]})})
    assert load(dump_config(config)).data == config.data
    assert resolve(config)["data"].keys() <= {"source", *KEYS_OF_SOURCE[source]}


@pytest.mark.parametrize("source", list(RIGHT))
@pytest.mark.parametrize("key", list(dict.fromkeys(key for keys in KEYS_OF_SOURCE.values() for key in keys)))
def test_keys_of_other_sources_are_refused(source: str, key: str) -> None:
    values = {"num_examples": 5, "test_fraction": 0.1, "header": True, "standardise_targets": True}
    values |= {"standardise": "each", "arguments": {"a": 1}, "test_arguments": {"a": 1}, "delimiter": ";"}
    given = {"source": source, **RIGHT[source], key: values.get(key, "name")}
    if key in KEYS_OF_SOURCE[source]:
        return
    with pytest.raises(ValidationError, match=f"{key}: is for source: .*; remove it"):
        DataConfig.model_validate(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "idx"}, "path: is missing, source: idx needs it"),
        ({"source": "npy", "path": "a"}, "targets_path: is missing"),
        ({"source": "torch"}, "dataset: is missing, source: torch needs it; add for example"),
        (
            {"source": "npy", "path": "a", "targets_path": "b", "test_path": "c"},
            "test_path: has no targets; add test_t",
        ),
        ({"source": "npy", "path": "a", "targets_path": "b", "test_targets_path": "c"}, "belongs to test_path, which"),
        ({"source": "npz", "path": "a", "test_features_key": "c"}, "belongs to test_targets_key"),
        ({"source": "npz", "path": "a", "test_targets_key": "c"}, "belongs to test_features_key"),
        (
            {"source": "csv", "path": "a", "test_path": "b", "test_fraction": 0.1},
            "both say which examples are held out",
        ),
        ({"source": "torch", "dataset": "a:b", "arguments": 3}, "are not keys with values"),
        ({"source": "torch", "dataset": "a:b", "arguments": {"a b": 3}}, "a key is no name in Python"),
        ({"source": "torch", "dataset": "a:b", "arguments": {"a": {"b": 3}}}, "a is nested"),
        ({"source": "csv", "path": "a", "delimiter": ",,"}, "at most 1 character"),
        ({"source": "csv", "path": "a", "standardise": True}, "Input should be 'together', 'each' or 'none'"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataConfig.model_validate(given)
    assert message in keys_of(caught.value)


def test_in_a_file_they_are_told_at_their_lines(problems: Any, right: str) -> None:
    found = problems(right.replace("source: synthetic", "source: csv\n  num_examples: 3\n  arguments: {a: {b: 1}}"))
    assert found == [
        "5: data.path: is missing, source: csv needs it; add the folder or file that holds the examples",
        "7: data.num_examples: is for source: synthetic only; remove it (on the command line: data.num_examples=null)",
        "8: data.arguments: is for source: torch only; remove it (on the command line: data.arguments=null)",
    ]
    nested = right.replace("source: synthetic", "source: torch\n  dataset: a:B\n  arguments: {a: {b: 1}}")
    assert problems(nested) == ["8: data.arguments: a is nested; take numbers, texts, true, false and lists of them"]


def test_classes_are_not_standardised(problems: Any, right: str) -> None:
    found = problems(right.replace("source: synthetic", "source: csv\n  path: a\n  standardise_targets: true"))
    assert found == ["8: data.standardise_targets: is for model.loss: mse, this is cross_entropy; remove it"]


def test_each_source_has_its_usual_ways() -> None:
    ways = {source: DataConfig.model_validate({"source": source, **values}) for source, values in RIGHT.items()}
    assert [source for source, data in ways.items() if data.scaling == "together"] == ["mnist5k", "idx"]
    assert [source for source, data in ways.items() if data.scaling == "none"] == ["synthetic", "torch"]
    assert DataConfig(source="diabetes").scales_targets
    assert not any(data.scales_targets for data in ways.values())


def test_a_fraction_is_assumed_only_where_nothing_else_is_held_out() -> None:
    fractions = {
        source: DataConfig.model_validate({"source": source, **values}).test_fraction
        for source, values in RIGHT.items()
    }
    assert fractions == {
        **dict.fromkeys(("mnist5k", "digits", "synthetic", "csv", "torch"), 0.2),
        "diabetes": 0.3,
        **dict.fromkeys(("idx", "npy", "npz"), None),
    }


def test_a_path_in_a_file_starts_in_the_files_folder(
    right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one on the command line where the command is given, as a shell completes it."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", "/home/somebody")
    file = tmp_path / "experiments" / "a.yaml"

    def path_of(text: str, *overrides: str) -> str | None:
        file.write_text(right.replace("source: synthetic", f"source: idx\n  path: {text}"))
        found = {load_config(name, overrides).data.path for name in (file, os.path.relpath(file))}
        assert len(found) == 1
        return found.pop()

    assert path_of("fashion") == str(tmp_path / "experiments" / "fashion")
    assert path_of("../data/fashion") == str(tmp_path / "data" / "fashion")
    assert path_of("/data/fashion") == "/data/fashion"
    assert path_of("~/fashion") == "/home/somebody/fashion"
    assert path_of("x", "data.path=fashion") == str(tmp_path / "elsewhere" / "fashion")
    assert path_of("x", "data.path=~/fashion") == "/home/somebody/fashion"


@pytest.mark.parametrize(
    ("key", "right_key"),
    [("data_dir", "data.path"), ("standardize", "data.standardise"), ("sep", "data.delimiter"), ("kwargs", "data.arg")],
)
def test_names_of_other_tools(problems: Any, right: str, key: str, right_key: str) -> None:
    (found,) = problems(right.replace("source: synthetic", f"source: synthetic\n  {key}: x"))
    assert f"unknown key; use {right_key}" in found
