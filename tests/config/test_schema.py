"""The models themselves: types, limits, defaults, and what does not go together."""

from typing import Any

import pytest
from pydantic import ValidationError

from partition.config import (
    CheckpointConfig,
    ClusterConfig,
    DataConfig,
    DeviceConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    PlannerConfig,
    PrecisionConfig,
    TrainingConfig,
)


def model(**changes: Any) -> ModelConfig:
    return ModelConfig.model_validate({"in_features": 4, "hidden_features": (8,), "out_features": 2} | changes)


def experiment(**changes: Any) -> ExperimentConfig:
    sections = {
        "name": "x",
        "model": model(),
        "data": DataConfig(source="synthetic"),
        "training": TrainingConfig(minibatch_size=6),
        "optimizer": OptimizerConfig(lr=0.1),
        "cluster": ClusterConfig(devices=(DeviceConfig(kind="cpu"),)),
    }
    return ExperimentConfig.model_validate(sections | changes)


def test_defaults() -> None:
    assert model().features == (4, 8, 2)
    assert (model().activation, model().bias, model().l2_penalty, model().loss) == ("relu", True, 0.0, "cross_entropy")
    assert experiment().precision == PrecisionConfig(parameters="float32", compute="float32")
    assert experiment().planner.objective == "time_to_target"
    assert DataConfig(source="digits").test_fraction == 0.2
    assert PlannerConfig().strategies is None


def test_a_model_may_be_one_layer() -> None:
    assert model(hidden_features=()).features == (4, 2)


def test_configs_are_frozen_and_hashable() -> None:
    with pytest.raises(ValidationError):
        model().bias = False
    assert hash(experiment()) == hash(experiment())


@pytest.mark.parametrize("size", [True, "4", 4.0, 0, -1, 2**24 + 1, 10**30, None])
def test_sizes_are_integers_within_limits(size: object) -> None:
    with pytest.raises(ValidationError):
        model(in_features=size)


def test_an_integer_may_stand_for_a_float_but_a_bool_may_not() -> None:
    assert OptimizerConfig(lr=1).lr == 1.0
    with pytest.raises(ValidationError):
        OptimizerConfig(lr=True)
    with pytest.raises(ValidationError):
        OptimizerConfig(lr=float("nan"))


def test_three_billion_parameters_are_admitted_and_a_quintillion_are_not() -> None:
    assert model(in_features=32768, hidden_features=(16384,) * 8, out_features=32768).features[0] == 32768
    with pytest.raises(ValidationError, match=r"the model has 2\.81e"):
        model(hidden_features=(2**24,) * 100_000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mse", "label_smoothing": 0.1}, "label_smoothing: is for loss: cross_entropy, this is mse"),
        ({"huber_delta": 2.0}, "huber_delta: is for loss: huber, this is cross_entropy"),
        ({"class_weights": (1.0, 2.0, 3.0)}, "has 3 numbers and out_features is 2; give one for every class"),
        ({"class_weights": (1.0, 0.0)}, "greater than or equal to 0.000000000001"),
        ({"class_weights": (1.0, 1e300)}, "less than or equal to 1000000000000"),
        ({"class_weights": ()}, "at least 1 item"),
        ({"loss": "huber", "huber_delta": 1e-300}, "greater than or equal to 0.000000000001"),
        ({"label_smoothing": 1.0}, "less than 1"),
        ({"loss": "huber", "huber_delta": float("inf")}, "finite"),
        ({"init": "normal"}, "he_normal"),
    ],
)
def test_options_of_losses_and_initialisation_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model(**changes)


def test_activations_are_limited_too() -> None:
    wide = model(in_features=2**24)
    with pytest.raises(ValidationError, match="1073741824 examples through layers of 16777226 features"):
        experiment(model=wide, training=TrainingConfig(minibatch_size=2**30))
    with pytest.raises(ValidationError, match=r"planner\.minibatch_sizes\.1"):
        experiment(model=wide, planner=PlannerConfig(minibatch_sizes=(1, 2**30)))


@pytest.mark.parametrize(("number_format", "itemsize"), [("float32", 4), ("float64", 8)])
def test_one_number_format_stands_for_both(number_format: Any, itemsize: int) -> None:
    for precision in (PrecisionConfig(parameters=number_format), PrecisionConfig(compute=number_format)):
        assert precision.parameters == precision.compute == number_format
        assert precision.itemsize == itemsize


def test_bfloat16_is_of_the_arithmetic_alone() -> None:
    both = PrecisionConfig(parameters="float32", compute="bfloat16")
    assert PrecisionConfig(compute="bfloat16") == both
    assert (both.is_mixed, both.itemsize, both.parameter_itemsize) == (True, 2, 4)
    assert not PrecisionConfig().is_mixed
    with pytest.raises(ValidationError, match="Input should be 'float32' or 'float64'"):
        PrecisionConfig.model_validate({"parameters": "bfloat16"})
    with pytest.raises(ValidationError, match="float64 does not go with compute: bfloat16; take parameters: float32"):
        PrecisionConfig(parameters="float64", compute="bfloat16")


def test_other_formats_are_not_mixed() -> None:
    with pytest.raises(ValidationError, match="compute: differs from parameters; give both the same, or compute: bfl"):
        PrecisionConfig(parameters="float32", compute="float64")


def test_one_epoch_unless_epochs_or_steps_are_given() -> None:
    assert TrainingConfig(minibatch_size=1).epochs == 1
    assert TrainingConfig(minibatch_size=1, steps=5).epochs is None
    with pytest.raises(ValidationError, match="both given"):
        TrainingConfig(minibatch_size=1, steps=5, epochs=1)


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_seeds_have_forty_bits(seed: int) -> None:
    assert TrainingConfig(minibatch_size=1, seed=2**40 - 1).seed == 2**40 - 1
    with pytest.raises(ValidationError):
        TrainingConfig(minibatch_size=1, seed=seed)


def test_weight_decay_is_that_of_adamw() -> None:
    assert OptimizerConfig(name="adamw", lr=0.1).weight_decay == 0.01
    assert OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.0).weight_decay == 0.0
    assert OptimizerConfig(name="adam", lr=0.1).weight_decay == 0.0


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("adam", "momentum", 0.9, "is for sgd"),
        ("adamw", "momentum", 0.0, "is for sgd"),
        ("sgd", "betas", (0.9, 0.99), "is for adam and adamw"),
        ("sgd", "eps", 1e-8, "is for adam and adamw"),
        ("sgd", "weight_decay", 0.1, r"use model\.l2_penalty"),
        ("adam", "weight_decay", 0.1, r"use model\.l2_penalty"),
    ],
)
def test_keys_of_another_optimizer_are_refused(name: str, key: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OptimizerConfig(**{"name": name, "lr": 0.1, key: value})  # type: ignore[arg-type]


def test_only_synthetic_data_have_a_number_of_examples() -> None:
    assert DataConfig(source="synthetic", num_examples=10).num_examples == 10
    with pytest.raises(ValidationError, match="synthetic only"):
        DataConfig(source="digits", num_examples=10)


def test_lists_of_the_planner_keep_each_value_once() -> None:
    assert PlannerConfig(num_stages=(2, 4, 2)).num_stages == (2, 4)
    with pytest.raises(ValidationError):
        PlannerConfig(num_stages=())


def test_a_device_with_rates_needs_that_of_the_format_in_use() -> None:
    half = ClusterConfig(devices=(DeviceConfig(kind="cpu", flop_per_s=(("float16", 1e12),)),))
    with pytest.raises(ValidationError, match=r"cluster\.devices\.0\.compute: has no figure for float32"):
        experiment(cluster=half)
    named = ClusterConfig(devices=(DeviceConfig(name="L4-24GB", flop_per_s=(("float16", 1e12),)),))  # type: ignore[call-arg]
    assert experiment(cluster=named).cluster == named


def test_a_run_saves_at_its_end_unless_told_otherwise() -> None:
    assert experiment().checkpoint == CheckpointConfig(every_steps=None, keep=3)
    assert CheckpointConfig(keep=0).every_steps is None
    for wrong in ({"every_steps": 0}, {"keep": -1}, {"every_steps": 2.0}, {"at": 3}):
        with pytest.raises(ValidationError):
            CheckpointConfig.model_validate(wrong)


def test_what_is_saved_has_to_be_kept() -> None:
    with pytest.raises(ValidationError, match="keep: is 0, so nothing is saved, and every_steps is given"):
        CheckpointConfig(every_steps=5, keep=0)
