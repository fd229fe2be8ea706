"""Whether a checkpoint belongs to an experiment, and where a run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from partition.config import ExperimentConfig
from partition.errors import CheckpointError, PartitionError
from partition.plan import Candidate, Search
from partition.record.checkpoint import (
    CheckpointRecord,
    Continuation,
    Position,
    check_matches,
    check_serves,
    check_steps_left,
)
from tests.record.checkpoint.made import CONFIG, facts_for, make_checkpoint


def find_candidate(config: ExperimentConfig, name: str) -> Candidate:
    return next(one for one in Search(config).candidates() if one.name == name)


@pytest.fixture
def record(tmp_path: Path) -> CheckpointRecord:
    """After 10 steps of 3 an epoch: within the fourth epoch."""
    return make_checkpoint(tmp_path, facts_for(CONFIG))


def change(section: str, **values: Any) -> ExperimentConfig:
    changed = getattr(CONFIG, section).model_copy(update=values)
    return CONFIG.model_copy(update={section: changed})


def match(
    record: CheckpointRecord, config: ExperimentConfig = CONFIG, name: str = "accumulate-4", **options: Any
) -> Continuation:
    return check_matches(record, config, find_candidate(config, name), **options)


def test_the_same_experiment_goes_on_where_it_was(record: CheckpointRecord) -> None:
    assert match(record) == Continuation(position=Position(step=10, epoch=3, minibatch=1), notes=())


def test_stages_schedules_and_lengths_change_freely(record: CheckpointRecord) -> None:
    """Neither the gradient nor its bits depend on them."""
    longer = change("training", steps=30)
    assert match(record, longer, "pipeline-3x4-gpipe").notes == ()
    assert match(record, change("training", steps=None, epochs=9)).notes == ()
    assert match(record, change("checkpoint", every_steps=2)).notes == ()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"hidden_features": (10, 9, 7)}, r"_features is \[10, 9, 8\] in the checkpoint and \[10, 9, 7\]"),
        ("model", {"activation": "relu"}, "model.activation is gelu in the checkpoint and relu in the experiment"),
        ("model", {"bias": False}, "model.bias is True in the checkpoint and False"),
        ("precision", {"parameters": "float64", "compute": "float64"}, "precision.parameters is float32 .* float64"),
        ("optimizer", {"name": "adam", "momentum": 0.0}, "optimizer.name is sgd in the checkpoint and adam"),
        ("optimizer", {"momentum": 0.5}, "optimizer.momentum is 0.9 in the checkpoint and 0.5"),
    ],
)  # fmt: skip
def test_what_tensors_depend_on_is_refused_and_cannot_be_allowed(
    record: CheckpointRecord, section: str, values: dict[str, Any], message: str
) -> None:
    config = change(section, **values)
    with pytest.raises(CheckpointError, match=message) as caught:
        match(record, config)
    assert caught.value.exit_code == 5
    key = f"{section}.{next(iter(values))}"
    with pytest.raises(PartitionError, match=f"--allow-change {key}: the tensors of a checkpoint depend on it"):
        match(record, config, allowed=[key])


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("training", {"seed": 1}),
        ("training", {"minibatch_size": 21}),
        ("optimizer", {"lr": 0.01}),
        ("model", {"l2_penalty": 0.0}),
        ("data", {"num_examples": 90}),
    ],
)
def test_another_course_is_refused_unless_its_key_is_allowed(
    record: CheckpointRecord, section: str, values: dict[str, Any]
) -> None:
    config, key = change(section, **values), f"{section}.{next(iter(values))}"
    with pytest.raises(CheckpointError, match=f"{key} is .*; set it as it was, or go on with `--allow-change {key}`"):
        match(record, config)
    found = match(record, config, allowed=[key])
    assert len(found.notes) >= 1
    assert found.notes[0].endswith("as allowed")


def test_with_another_order_of_examples_the_next_whole_epoch_begins(record: CheckpointRecord) -> None:
    """One minibatch of the fourth epoch is done; which examples the rest would be, another seed cannot say."""
    found = match(record, change("training", seed=1), allowed=["training.seed"])
    assert found.position == Position(step=10, epoch=4, minibatch=0)
    rate = match(record, change("optimizer", lr=0.01), allowed=["optimizer.lr"])
    assert rate.position == Position(step=10, epoch=3, minibatch=1)


def test_between_two_epochs_nothing_is_skipped(tmp_path: Path) -> None:
    record = make_checkpoint(tmp_path, facts_for(CONFIG, 9))
    found = match(record, change("training", seed=1), allowed=["training.seed"])
    assert found.position == Position(step=9, epoch=3, minibatch=0)


def test_a_strategy_with_a_smaller_minibatch_is_another_minibatch(record: CheckpointRecord) -> None:
    with pytest.raises(
        CheckpointError, match=r"training.minibatch_size is 22 in the checkpoint and 11 in the experiment"
    ):
        match(record, name="shrink-11")


def test_other_microbatches_are_noted_not_refused(record: CheckpointRecord) -> None:
    found = match(record, name="accumulate-2")
    assert found.notes == ("microbatch_size was 6 and is 11", "num_microbatches was 4 and is 2")
    assert found.position == match(record).position


def test_everything_that_differs_is_told_at_once(record: CheckpointRecord) -> None:
    config = CONFIG.model_copy(
        update={"optimizer": change("optimizer", lr=1.0).optimizer, "model": change("model", bias=False).model}
    )
    with pytest.raises(CheckpointError) as caught:
        match(record, config)
    assert len(str(caught.value).splitlines()) == 2


def test_another_number_of_examples_in_the_same_data_is_noticed(tmp_path: Path) -> None:
    """A file that has grown since."""
    record = make_checkpoint(tmp_path, facts_for(CONFIG, num_train=60))
    with pytest.raises(CheckpointError, match=r"data.num_examples is for 60 to train on .* for 64"):
        match(record)


def test_keys_that_a_checkpoint_does_not_know_stand_at_their_default(tmp_path: Path) -> None:
    """It was made before they were there."""
    facts = facts_for(CONFIG)
    model = {key: value for key, value in facts.experiment["model"].items() if key != "bias"}
    record = make_checkpoint(tmp_path, replace(facts, experiment={**facts.experiment, "model": model}))
    assert match(record).notes == ()
    with pytest.raises(CheckpointError, match=r"model.bias is True in the checkpoint and False"):
        match(record, change("model", bias=False))


@pytest.mark.parametrize("key", ["cluster.devices", "seed", "training.sed", "", "planner.objective"])
def test_only_keys_that_are_compared_can_be_allowed(record: CheckpointRecord, key: str) -> None:
    with pytest.raises(PartitionError, match=r"^--allow-change .*: no key of model, precision"):
        match(record, allowed=[key])


def test_an_experiment_that_is_no_mapping_differs_in_everything(tmp_path: Path) -> None:
    record = make_checkpoint(tmp_path, replace(facts_for(CONFIG), experiment={"model": 3}))
    with pytest.raises(CheckpointError, match=r"model.in_features is None in the checkpoint and 12"):
        match(record)


def test_prediction_asks_for_the_model_alone(record: CheckpointRecord) -> None:
    for config in (change("optimizer", lr=1.0), change("model", l2_penalty=0.0), change("training", minibatch_size=9)):
        check_serves(record, config, on_held_out=True)
    with pytest.raises(CheckpointError, match=r"model.activation is gelu"):
        check_serves(record, change("model", activation="tanh"), on_held_out=False)
    with pytest.raises(CheckpointError, match=r"precision.parameters is float32"):
        check_serves(record, change("precision", parameters="float64", compute="float64"), on_held_out=False)


def test_the_format_of_the_arithmetic_is_not_in_the_tensors(record: CheckpointRecord) -> None:
    config = change("precision", compute="bfloat16")
    check_serves(record, config, on_held_out=True)
    with pytest.raises(CheckpointError, match=r"bfloat16 in the experiment; .*`--allow-change precision.compute`"):
        match(record, config)
    found = match(record, config, allowed=["precision.compute"])
    assert found.position == match(record).position
    assert found.notes[0] == "precision.compute is float32 in the checkpoint and bfloat16 in the experiment, as allowed"


def test_examples_that_were_trained_on_are_not_evaluated(record: CheckpointRecord) -> None:
    """Another seed holds out others."""
    for config in (change("training", seed=1), change("data", test_fraction=0.5)):
        with pytest.raises(CheckpointError, match=r"(training.seed|data.test_fraction) is .*config\.yaml"):
            check_serves(record, config, on_held_out=True)
        check_serves(record, config, on_held_out=False)


def test_a_run_that_has_gone_far_enough(record: CheckpointRecord) -> None:
    position = Position(step=10)
    check_steps_left(record, position, 11, is_continued=False)
    check_steps_left(record, position, 10, is_continued=True)
    for total, is_continued in ((10, False), (9, True)):
        with pytest.raises(
            PartitionError, match=f"10 steps are done and the experiment asks for {total}; set training"
        ):
            check_steps_left(record, position, total, is_continued=is_continued)
