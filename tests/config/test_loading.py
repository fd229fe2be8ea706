"""Whole files: those shipped, those that are not files, and those that nobody would write."""

import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partition.config import ChainConfig, load_cluster, load_config
from partition.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"

EVERYTHING_WRONG = """\
model:
  in_featurs: 784
  hidden_features: {width: 0, depth: 1e3}
  out_features: "10"
  bias: yes
precision: float16
data:
  source: mnist
training:
  minibatch_size: 0
  epochs: 3
  epochs: 4
  steps: 5
optimizer: {name: adam, lr: .nan, momentum: 0.9}
cluster:
  devices:
    - {kind: simulated, memory: 76 MB/s}
    - foo
  links: {bandwidth: -1}
planner: {num_stages: 0}
dropout: 0.1
"""


def message(path: str | Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert len(caught.value.problems) == 1
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_experiments_load(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_the_default_experiment_is_the_one_of_the_documentation() -> None:
    config = load_config(CONFIGS / "mnist.yaml", ["training.minibatch_size=250"])
    assert config.model.features == (784, *[1024] * 6, 10)
    assert (config.model.activation, config.model.l2_penalty) == ("gelu", 1e-4)
    assert config.training.minibatch_size == 250
    assert len(config.cluster.devices) == 4
    assert {device.memory_bytes for device in config.cluster.devices} == {76 * 2**20}


def test_the_recommender_has_about_three_billion_parameters() -> None:
    features = load_config(CONFIGS / "recommender.yaml").model.features
    num_parameters = sum((a + 1) * b for a, b in pairwise(features))
    assert 2.9e9 < num_parameters < 3.1e9


def test_everything_wrong_is_told_at_once_by_line(problems: Any) -> None:
    places = [text.split(": ")[:2] for text in problems(EVERYTHING_WRONG, ["nonsense"])]
    assert [(int(line), key) for line, key in places[:-1]] == [
        (1, "model.in_features"),
        (2, "model.in_featurs"),
        (3, "model.hidden_features.width"),
        (3, "model.hidden_features.depth"),
        (4, "model.out_features"),
        (5, "model.bias"),
        (6, "precision"),
        (8, "data.source"),
        (10, "training.minibatch_size"),
        (12, "training.epochs"),
        (13, "training.steps"),
        (14, "optimizer.lr"),
        (14, "optimizer.momentum"),
        (17, "cluster.devices.0.memory"),
        (18, "cluster.devices.1"),
        (19, "cluster.links.bandwidth"),
        (20, "planner.num_stages"),
        (21, "dropout"),
    ]
    assert places[-1][0] == "override 'nonsense'"


def test_scientific_notation_is_a_number(load: Any, right: str) -> None:
    """PyYAML alone reads 1e-3 as text."""
    assert load(right.replace("lr: 0.1", "lr: 1e-3")).optimizer.lr == 1e-3


def test_leading_zeros_do_not_make_a_number_octal(load: Any, right: str) -> None:
    assert load(right.replace("in_features: 4", "in_features: 012")).model.in_features == 12


def test_a_byte_order_mark_and_windows_lines_do_no_harm(load: Any, right: str) -> None:
    assert load(b"\xef\xbb\xbf" + right.replace("\n", "\r\n").encode()) == load(right)


def test_json_is_yaml(load: Any) -> None:
    text = (
        '{"model": {"in_features": 4, "hidden_features": [], "out_features": 2}, "data": {"source": "digits"},'
        ' "training": {"minibatch_size": 6}, "optimizer": {"lr": 1e-3}, "cluster": {"devices": {"kind": "cpu"}}}'
    )
    assert load(text).model.features == (4, 2)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ":1: the file is empty; an experiment has the keys model, data"),
        (b"# nothing\n", ":1: the file is empty"),
        (b"hello", ":1: the file holds 'hello', not keys"),
        (b"- 1\n- 2\n", ":1: the file holds a list, not keys"),
        (b"\x7fELF\x00\x01", ": is a binary file"),
        (b"model:\n  \xff", ":2: is not text in UTF-8"),
        (b"#" * (2**20 + 1), ": is larger than 1 MiB"),
        (b"model:\n\tin_features: 3", ":2: not valid YAML at column 1: a tab; indent with spaces"),
    ],
)
def test_files_without_an_experiment(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert message(path).startswith(f"{path}{text}")


def test_paths_without_a_file(tmp_path: Path) -> None:
    assert message(tmp_path / "none.yaml").endswith("none.yaml: there is no such file; check the path")
    assert message(tmp_path).endswith("is a directory; name an experiment in YAML")
    assert "is not a directory" not in message(CONFIGS / "mnist.yaml" / "x")
    assert message("a\0b") == r"'a\x00b': the path holds a null character; check it"
    assert message("x" * 5000).endswith("cannot be read: File name too long")
    assert message("\n.yaml").startswith(r"'\n.yaml': there is no such file")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert message(tmp_path / "pipe").endswith("is not a regular file; name an experiment in YAML")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.touch(mode=0o000)
    assert message(path).endswith("cannot be read: Permission denied")


def test_a_file_with_thousands_of_mistakes_is_told_in_part(problems: Any) -> None:
    found = problems("model: {hidden_features: [" + "x," * 15_000 + "]}")
    assert len(found) == 101
    assert "more problems" in found[-1]


@settings(deadline=None)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(load: Any, content: bytes) -> None:
    with pytest.raises(ConfigError):
        load(content)


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["relu", "1 MiB", "*a"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["model", "cluster", "devices", "links", "planner", "memory", "kind", "compute", "count", "lr"]
            )
            | st.text(max_size=3),
            below,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(section=st.sampled_from(["model", "data", "training", "optimizer", "cluster", "planner"]), tree=TREES)
def test_random_sections_are_taken_or_refused(load: Any, problems: Any, right: str, section: str, tree: Any) -> None:
    override = f"{section}={_flow(tree)}"
    try:
        load(right, [override])
    except ConfigError:
        problems(right, [override])


def _flow(tree: Any) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(value)}" for key, value in tree.items()) + "}"
    return "[" + ", ".join(map(_flow, tree)) + "]" if isinstance(tree, list) else str(tree)


PIECES = (b": ", b"- ", b"[", b"]", b"{", b"}", b"&a ", b"*a", b"!!int ", b"|\n", b'"', b"'", b"\t", b"\n", b"? ", b",")
ODDITIES = (
    b"#",
    b"\xff",
    b"\0",
    b"1e999",
    b"null",
    b"-1",
    b"9" * 5000,
    b"true",
    b"\xc2\x85",
    b"\r",
    b"<<: ",
    b"[[[[",
    b"%",
)


@pytest.mark.parametrize("seed", range(200))
def test_damaged_experiments_are_taken_or_refused(load: Any, seed: int) -> None:
    draw = random.Random(seed)
    content = bytearray(draw.choice(sorted(CONFIGS.glob("*.yaml"))).read_bytes())
    for _ in range(draw.randint(1, 6)):
        start = draw.randrange(len(content) + 1)
        content[start : start + draw.choice([0, 0, 5, 20])] = draw.choice(PIECES + ODDITIES)
    try:
        load(bytes(content))
    except ConfigError as error:
        assert all(str(problem).isprintable() for problem in error.problems)  # noqa: PT017


def test_loading_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'rich', 'matplotlib', 'scipy'}"
    code = f"import sys; from partition.config import load_config; print(sorted({heavy} & sys.modules.keys()))"
    root = CONFIGS.parent
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


CHAIN = """\
model: {costs: chain.csv, microbatch_size: 4}
training: {minibatch_size: 16}
cluster: {devices: {count: 2, kind: simulated, memory: 1 MiB}}
"""


def test_a_model_of_costs_is_a_chain_whose_path_starts_in_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(CHAIN)
    config = load_config(tmp_path / "small.yaml")
    assert isinstance(config, ChainConfig)
    assert (config.name, config.model.costs) == ("small", str(tmp_path / "chain.csv"))
    assert len(config.cluster.devices) == 2


def test_a_chain_lacks_nothing_but_its_own_and_takes_nothing_of_a_network(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "model:\n  costs: chain.csv\n  bias: true\ndata: {source: digits}\ntraining: {minibatch_size: 3, epochs: 2}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "small.yaml")
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (1, "model.microbatch_size"),
        (1, "cluster"),
        (3, "model.bias"),
        (4, "data"),
        (5, "training.epochs"),
    ]
    assert "a chain of model.costs is only planned; remove it" in str(caught.value)


def test_a_microbatch_size_needs_costs() -> None:
    with pytest.raises(ConfigError, match=r"goes with model\.costs, a table of layer costs; use planner"):
        load_config(CONFIGS / "digits.yaml", ["model.microbatch_size=4"])


def test_of_a_cluster_file_only_the_cluster_is_read(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text("model: nonsense\ncluster: {devices: {count: 3, kind: simulated, memory: 1 KiB}}\n")
    assert [device.memory_bytes for device in load_cluster(path).devices] == [1024] * 3
    path.write_text("cluster: {devices: {count: 0, kind: simulated}}\n")
    with pytest.raises(ConfigError, match=r"any\.yaml:1: cluster\.devices\.count: 0 is too small"):
        load_cluster(path)
