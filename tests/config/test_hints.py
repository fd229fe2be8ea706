"""Unknown keys: the names of other tools, keys in the wrong section, slips of the pen."""

import pytest

from partition.config.hints import suggest, suggest_word
from partition.config.keys import VOCABULARY


@pytest.mark.parametrize(
    ("key", "section", "right"),
    [
        ("batch_size", "training", "training.minibatch_size"),
        ("gradient_accumulation_steps", "training", "planner.num_microbatches"),
        ("micro_batch_size", "training", "planner.num_microbatches"),
        ("max_steps", "training", "training.steps"),
        ("num_epochs", "training", "training.epochs"),
        ("weight_decay", "training", "model.l2_penalty"),
        ("learning_rate", "optimizer", "optimizer.lr"),
        ("num_gpus", "cluster", "cluster.devices.count"),
        ("world_size", "", "cluster.devices.count"),
        ("dtype", "model", "precision.compute"),
        ("hidden_sizes", "model", "model.hidden_features"),
        ("hidden_layers", "model", "model.hidden_features"),
        ("hidden_dim", "model", "model.hidden_features"),
        ("depth", "model", "{width: 1024, depth: 2}"),
        ("input_size", "model", "model.in_features"),
        ("input-dim", "model", "model.in_features"),
        ("num_classes", "model", "model.out_features"),
        ("save_steps", "training", "checkpoint.every_steps"),
        ("save_total_limit", "checkpoint", "checkpoint.keep"),
        ("checkpoint", "training", "checkpoint"),
        ("Batch Size", "training", "training.minibatch_size"),
    ],
)
def test_names_of_other_tools(key: str, section: str, right: str) -> None:
    assert right in suggest(key, section, VOCABULARY)


@pytest.mark.parametrize("key", ["attention", "batch_norm", "nesterov", "checkpointing", "fp16"])
def test_what_is_not_there_is_said_to_be_absent(key: str) -> None:
    assert "not available" in suggest(key, "model", VOCABULARY)


def test_a_key_of_another_section_is_sent_there() -> None:
    assert suggest("lr", "training", VOCABULARY) == "it belongs elsewhere: optimizer.lr"


def test_slips_are_corrected_here_before_elsewhere() -> None:
    assert suggest("in_featurs", "model", VOCABULARY) == "did you mean 'in_features'?"
    assert suggest("minibatchsize", "model", VOCABULARY) == "did you mean training.minibatch_size?"
    assert suggest("LR", "optimizer", VOCABULARY) == "write it lr"


def test_what_is_like_nothing_gets_the_list() -> None:
    assert suggest("qqq", "cluster", VOCABULARY) == "keys here: devices, links, headroom, context"


def test_words_are_corrected_where_one_is_close() -> None:
    assert suggest_word("Rellu", ["relu", "gelu"]) == "; did you mean 'relu'?"
    assert suggest_word("q" * 10_000, ["relu"]) == ""
