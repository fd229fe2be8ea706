"""The words for every kind of wrong value: the value as written, the limit, what to change."""

from typing import Any

import pytest

from partition.config.keys import VOCABULARY
from partition.config.messages import EXAMPLES, describe_missing, describe_wrong
from partition.config.nodes import Node


@pytest.mark.parametrize(
    ("right_line", "wrong_line", "message"),
    [
        ("in_features: 4", "in_features: 0", "2: model.in_features: 0 is too small; the least is 1"),
        (
            "in_features: 4",
            f"in_features: {10**30}",
            f"2: model.in_features: {10**30} is too large; the most is 16777216",
        ),
        ("in_features: 4", "in_features: " + "9" * 5000, "2: model.in_features: a number of 5000 digits is too large"),
        ("in_features: 4", "in_features: '500'", "2: model.in_features: '500' is text; write the number plainly: 500"),
        (
            "in_features: 4",
            "in_features: 1_000",
            "2: model.in_features: '1_000' is text; write the number plainly: 1000",
        ),
        (
            "in_features: 4",
            "in_features: 1e3",
            "2: model.in_features: 1e3 is not written as a whole number; write 1000",
        ),
        ("in_features: 4", "in_features: 1.5", "2: model.in_features: 1.5 is not a whole number"),
        ("in_features: 4", "in_features: .nan", "2: model.in_features: .nan is not a whole number"),
        ("in_features: 4", "in_features: true", "2: model.in_features: true is not a whole number"),
        ("in_features: 4", "in_features: [4]", "2: model.in_features: a list is not a whole number"),
        ("in_features: 4", "in_features: {a: 4}", "2: model.in_features: a mapping is not a whole number"),
        ("[8, 8]", "[8, x]", "3: model.hidden_features.1: 'x' is not a whole number"),
        ("[8, 8]", "[8, null]", "3: model.hidden_features.1: nothing is not a whole number"),
        ("lr: 0.1", "lr: 0", "10: optimizer.lr: 0 is too small; it must be more than 0"),
        ("lr: 0.1", "lr: -.inf", "10: optimizer.lr: -.inf is not a finite number"),
        ("lr: 0.1", "lr: .nan", "10: optimizer.lr: .nan is not a finite number"),
        ("lr: 0.1", f"lr: 1{'0' * 350}", "10: optimizer.lr: 1000000000000000000000000000000000000000000000000000000"),
        ("lr: 0.1", "lr: '0.1'", "10: optimizer.lr: '0.1' is text; write the number plainly: 0.1"),
        ("lr: 0.1", "lr: 0,1", "10: optimizer.lr: '0,1' is not a number"),
        ("lr: 0.1", "lr: true", "10: optimizer.lr: true is not a number"),
        ("lr: 0.1", "lr: 1\n  momentum: 1", "11: optimizer.momentum: 1 is too large; it must be less than 1"),
        (
            "lr: 0.1",
            "{name: adam, lr: 1, betas: [0.9]}",
            "9: optimizer.betas: the list is too short; write it like [0.9",
        ),
        (
            "lr: 0.1",
            "{name: adam, lr: 1, betas: [0, 0, 0]}",
            "9: optimizer.betas: the list is too long: 3 entries, the most",
        ),
        (
            "source: synthetic",
            "source: mnist",
            "6: data.source: 'mnist' is not available; choose mnist5k, digits, diabetes, synthetic, idx, npz,",
        ),
        (
            "source: synthetic",
            "source: [a]",
            "6: data.source: a list is not available; choose mnist5k, digits, diabetes, synth",
        ),
        ("[8, 8]", "[]\n  bias: no", "4: model.bias: 'no' is not true or false; use true or false"),
        (
            "[8, 8]",
            "[]\n  activation: Relu",
            "4: model.activation: 'Relu' is not available; choose identity, relu, gelu, ge",
        ),
    ],
)
def test_wrong_values(right_line: str, wrong_line: str, message: str, problems: Any, right: str) -> None:
    text = right.replace(right_line, wrong_line).replace("optimizer:\n  {", "optimizer: {")
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_formats_that_are_not_available_are_answered_with_those_that_are(problems: Any, right: str) -> None:
    assert problems(right + "precision: {parameters: float16, compute: float16}\n") == [
        "15: precision.parameters: 'float16' is not available; choose float32 or float64",
        "15: precision.compute: 'float16' is not available; choose float32, float64 or bfloat16",
    ]
    (message,) = problems(right + "precision: {parameters: bfloat16, compute: bfloat16}\n")
    assert message.startswith("15: precision.parameters: 'bfloat16' is not available; choose float32 or float64")


@pytest.mark.parametrize(
    ("line", "more", "message"),
    [
        ("minibatch_size: 6\n  noise: true", "", "training.noise: is measured in float32 or float64"),
        ("minibatch_size: 6", "planner: {strategies: [sharded]}\n", "planner.strategies: sharded computes in float32"),
    ],
)
def test_what_needs_one_number_format_is_refused_with_bfloat16(
    line: str, more: str, message: str, problems: Any, right: str
) -> None:
    found = problems(right.replace("minibatch_size: 6", line) + "precision: {compute: bfloat16}\n" + more)
    assert len(found) == 1
    assert message in found[0]


def test_a_value_that_another_follows_is_told_once(problems: Any, right: str) -> None:
    assert problems(right + "precision: {parameters: float16}\n") == [
        "15: precision.parameters: 'float16' is not available; choose float32 or float64"
    ]


def test_mixed_precision_is_answered(problems: Any, right: str) -> None:
    assert problems(right + "precision:\n  parameters: float32\n  compute: float64\n") == [
        "17: precision.compute: differs from parameters; give both the same, or compute: bfloat16 with parameters: "
        "float32"
    ]


def test_missing_keys_are_told_at_their_section_with_an_example(problems: Any, right: str) -> None:
    text = right.replace("  in_features: 4\n", "").replace("  lr: 0.1\n", "  name: sgd\n")
    assert problems(text) == [
        "1: model.in_features: is missing; add it, for example `in_features: 784`",
        "8: optimizer.lr: is missing; add it, for example `lr: 0.1`",
    ]


def test_missing_sections_are_told_with_an_example(problems: Any) -> None:
    found = problems("precision: {compute: float32}\n")
    assert [text.split(":")[1].strip() for text in found] == ["model", "data", "training", "optimizer", "cluster"]
    assert all("is missing; add it, for example `" in text for text in found)


def test_examples_are_of_keys_that_exist() -> None:
    keys = {f"{section}.{key}".strip(".") for section, keys in VOCABULARY.items() for key in keys}
    assert EXAMPLES.keys() <= keys


def test_a_kind_of_error_never_seen_still_names_the_value() -> None:
    node = Node(file="f", line=1, path="a", text="5", value=5)
    assert describe_wrong(node, "of_a_later_pydantic", {}) == "5 is not valid here"
    assert describe_missing("a.b") == "is missing; add it"


def test_a_loss_may_be_a_function_of_the_users() -> None:
    node = Node(file="a.yaml", line=1, path="model.loss", text="hinge", value="hinge")
    said = describe_wrong(node, "literal_error", {"expected": "'cross_entropy', 'mse'"})
    assert said.endswith("choose cross_entropy, mse or a function of yours, package.module:function")
