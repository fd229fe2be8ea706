"""From the tree to the schema and its refusals back to their places."""

from typing import Any

from partition.config import ExperimentConfig
from partition.config.nodes import Node
from partition.config.validation import validate


def test_an_empty_tree_lacks_every_required_section() -> None:
    config, problems = validate(Node(file="f", line=1, path="", text="", value={}), ExperimentConfig, name="x")
    assert config is None
    assert [problem.key for problem in problems] == ["model", "data", "training", "optimizer", "cluster"]


def test_the_name_is_given_from_outside(load: Any) -> None:
    assert load().name == "experiment"
    assert load(name="other").name == "other"


def test_conflicts_are_told_beside_errors_of_the_same_section(problems: Any, right: str) -> None:
    """The schema stops at the first kind: whoever mended the type would only then be told of the conflict."""
    text = right.replace("minibatch_size: 6", "minibatch_size: x\n  epochs: 1\n  steps: 2")
    assert problems(text) == [
        "8: training.minibatch_size: 'x' is not a whole number",
        "10: training.steps: and epochs are both given; keep one of them",
    ]


def test_all_conflicts_of_a_section_are_told(problems: Any, right: str) -> None:
    text = right.replace("lr: 0.1", "lr: 0.1\n  name: adam\n  momentum: 0.9\n  weight_decay: 0.1")
    found = problems(text)
    assert [message.split(":")[1].strip() for message in found] == ["optimizer.momentum", "optimizer.weight_decay"]


def test_what_is_too_large_is_told_once(problems: Any, right: str) -> None:
    found = problems(right.replace("minibatch_size: 6", f"minibatch_size: {10**30}"))
    assert found == [f"8: training.minibatch_size: {10**30} is too large; the most is 1073741824"]


def test_products_of_admissible_sizes_are_limited(problems: Any, right: str) -> None:
    text = right.replace("[8, 8]", "{width: 16777216, depth: 100000}")
    assert problems(text) == [
        "3: model.hidden_features: the model has 2.81e+19 weights, the limit is 1.13e+15; take fewer or narrower layers"
    ]
