"""The schema of an experiment: what each section holds, its types, defaults and limits.

Sizes are limited so that every count of values, parameters or bytes derived from them stays an exact 64-bit integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from partition.config.cluster import ClusterConfig, DeviceConfig, LinkConfig, LinksConfig
from partition.config.data import DataConfig
from partition.config.model import (
    LARGEST_DEPTH,
    LARGEST_VALUE_COUNT,
    BlockConfig,
    ModelConfig,
    Positive,
    ResidualConfig,
    Weight,
    as_list,
    as_mapping,
    known_features,
)
from partition.config.planner import LARGEST_MICROBATCH_COUNT, LARGEST_MINIBATCH, Examples, PinConfig, PlannerConfig
from partition.config.section import Conflict, Section

__all__ = [
    "LARGEST_DEPTH",
    "LARGEST_MICROBATCH_COUNT",
    "LARGEST_MINIBATCH",
    "LARGEST_SEED",
    "LARGEST_VALUE_COUNT",
    "BlockConfig",
    "ChainConfig",
    "ChainModelConfig",
    "ChainTrainingConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "ClusterFile",
    "DataConfig",
    "DeviceConfig",
    "ExperimentConfig",
    "LinkConfig",
    "LinksConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PinConfig",
    "PlannerConfig",
    "PrecisionConfig",
    "ResidualConfig",
    "TrainingConfig",
]

NumberFormat = Literal["float32", "float64"]
ComputeFormat = Literal["float32", "float64", "bfloat16"]
OptimizerName = Literal["sgd", "adam", "adamw"]
LearningRateSchedule = Literal["constant", "linear", "cosine"]

LARGEST_SEED = 2**40 - 1

Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class PrecisionConfig(Section):
    """Number formats of the parameters and of the arithmetic; where one is given the other follows.

    They are the same, or the arithmetic is in bfloat16 on parameters, gradients and sums in float32.
    """

    parameters: NumberFormat = "float32"
    compute: ComputeFormat = "float32"

    @property
    def is_mixed(self) -> bool:
        """Whether parameters, gradients and sums are in a wider format than the arithmetic."""
        return self.parameters != self.compute

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the arithmetic."""
        return {"float64": 8, "float32": 4, "bfloat16": 2}[self.compute]

    @property
    def parameter_itemsize(self) -> int:
        """Bytes of a parameter."""
        return 8 if self.parameters == "float64" else 4

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """Of two formats one is bfloat16, for the arithmetic."""
        parameters, compute = given.get("parameters"), given.get("compute")
        if None in (parameters, compute) or parameters == compute or (parameters, compute) == ("float32", "bfloat16"):
            return
        if compute == "bfloat16":
            yield Conflict("parameters", f"{parameters} does not go with compute: bfloat16; take parameters: float32")
        else:
            advice = "give both the same, or compute: bfloat16 with parameters: float32"
            yield Conflict("compute", f"differs from parameters; {advice}")

    @model_validator(mode="before")
    @classmethod
    def _follow_the_given(cls, given: object) -> object:
        if isinstance(given, Mapping) and len(given) == 1 and given.keys() <= {"parameters", "compute"}:
            both = dict.fromkeys(("parameters", "compute"), *given.values())
            return both | {"parameters": "float32"} if given == {"compute": "bfloat16"} else both
        return given


class TrainingConfig(Section):
    """How long to train, in what portions, from which seed."""

    minibatch_size: Examples
    epochs: Annotated[int, Field(ge=1, le=10**6)] | None = None
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Exactly one of epochs and steps is not None; one epoch if neither is given."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    timeout_s: Annotated[float, Field(ge=1, le=10**6, allow_inf_nan=False)] = 60.0
    """How long a rank waits for another, with all that this one may have to do first."""
    noise: bool = False
    """Measure the noise of the gradient at every step, which a minibatch of at least two examples can tell."""

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """Epochs and steps both say when to end."""
        if given.get("epochs") is not None and given.get("steps") is not None:
            yield Conflict("steps", "and epochs are both given; keep one of them")
        if given.get("noise") is True and given.get("minibatch_size") == 1:
            yield Conflict("noise", "is measured by how examples of a minibatch differ, this has 1; take at least 2")

    @model_validator(mode="before")
    @classmethod
    def _default_to_one_epoch(cls, given: object) -> object:
        is_open = isinstance(given, Mapping) and given.get("epochs") is None and given.get("steps") is None
        return {**given, "epochs": 1} if isinstance(given, Mapping) and is_open else given


class OptimizerConfig(Section):
    """SGD with momentum, Adam or AdamW, as in torch.optim; what belongs to another optimizer is refused."""

    name: OptimizerName = "sgd"
    lr: Positive
    momentum: Decay = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: Weight = 0.0
    """Decoupled, AdamW only, where it is 0.01 unless given."""
    max_grad_norm: Positive | None = None
    """The norm over all gradients above which they are scaled down to it; None: never."""
    lr_schedule: LearningRateSchedule = "constant"
    """How the learning rate goes on after the warm-up."""
    lr_final: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Where linear and cosine end, as a fraction of lr."""
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Steps over which the learning rate rises in a line from 0 to lr."""

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """Each optimizer has keys of its own."""
        name = given.get("name", "sgd")
        remove = "remove it (on the command line: optimizer.{}=null)"
        if "momentum" in given and name in ("adam", "adamw"):
            yield Conflict("momentum", f"is for sgd, {name} has betas; {remove.format('momentum')}")
        for key in ("betas", "eps"):
            if key in given and name == "sgd":
                yield Conflict(key, f"is for adam and adamw, not for sgd; {remove.format(key)}")
        if "weight_decay" in given and name in ("sgd", "adam"):
            yield Conflict("weight_decay", f"is for adamw, not for {name}; use model.l2_penalty")

    @model_validator(mode="before")
    @classmethod
    def _default_weight_decay(cls, given: object) -> object:
        is_adamw = isinstance(given, Mapping) and given.get("name") == "adamw"
        return {"weight_decay": 0.01, **given} if isinstance(given, Mapping) and is_adamw else given


class CheckpointConfig(Section):
    """When a run saves its state: at its end, and every so many steps before."""

    every_steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """None saves at the end only."""
    keep: Annotated[int, Field(ge=0, le=10**6)] = 3
    """Checkpoints that a run directory holds; 0 saves none, not even at the end."""

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """What is saved has to be kept."""
        if given.get("keep") == 0 and given.get("every_steps") is not None:
            yield Conflict("keep", "is 0, so nothing is saved, and every_steps is given; remove one of them")


class ExperimentConfig(Section):
    """A whole experiment. `name` is the stem of its file, not a key in it."""

    name: Annotated[str, Field(min_length=1)]
    model: ModelConfig
    precision: PrecisionConfig = PrecisionConfig()
    data: DataConfig
    training: TrainingConfig
    optimizer: OptimizerConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    cluster: ClusterConfig
    planner: PlannerConfig = PlannerConfig()

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """What one section makes impossible in another."""
        yield from _too_many_values(given)
        yield from _missing_rates(given)
        yield from _scaled_classes(given)
        yield from _in_one_format(given)


class ChainModelConfig(Section):
    """A chain of layers that is known by a table of their costs alone."""

    costs: Annotated[str, Field(min_length=1)]
    """The CSV file."""
    microbatch_size: Examples
    """Examples of the microbatch that the costs are of."""


class ChainTrainingConfig(Section):
    """What a plan needs to know of the training."""

    minibatch_size: Examples


class ChainConfig(Section):
    """An experiment to plan and not to run: layer costs from a table in place of a network."""

    name: Annotated[str, Field(min_length=1)]
    model: ChainModelConfig
    training: ChainTrainingConfig
    cluster: ClusterConfig
    planner: PlannerConfig = PlannerConfig()

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """Steps are whole microbatches, and a table says nothing of a layer's inside."""
        yield from _cut_microbatches(given)
        planner = as_mapping(given.get("planner"))
        if planner.get("costs") is not None:
            yield Conflict("planner.costs", "the costs of this experiment are model.costs; remove one of the two")
        if "sharded" in as_list(planner.get("strategies")):
            yield Conflict("planner.strategies", "sharded needs the layers' shapes, model.costs has none; remove it")


class ClusterFile(Section):
    """A file of which only the cluster is read."""

    cluster: ClusterConfig


def _cut_microbatches(given: Mapping[str, Any]) -> Iterator[Conflict]:
    model, training, planner = (as_mapping(given.get(section)) for section in ("model", "training", "planner"))
    rows = model.get("microbatch_size")
    sizes = {"training.minibatch_size": training.get("minibatch_size")}
    sizes |= {f"planner.minibatch_sizes.{i}": size for i, size in enumerate(as_list(planner.get("minibatch_sizes")))}
    for key, size in sizes.items():
        if isinstance(rows, int) and isinstance(size, int) and rows > 0 and size % rows:
            yield Conflict(
                key, f"{size} examples are no whole number of model.microbatch_size, {rows}; take a multiple of it"
            )


def _too_many_values(given: Mapping[str, Any]) -> Iterator[Conflict]:
    num_features = sum(known_features(given.get("model")))
    training, planner = (as_mapping(given.get(section)) for section in ("training", "planner"))
    sizes = {"training.minibatch_size": training.get("minibatch_size")}
    sizes |= {f"planner.minibatch_sizes.{i}": size for i, size in enumerate(as_list(planner.get("minibatch_sizes")))}
    for key, size in sizes.items():
        if isinstance(size, int) and size * num_features > LARGEST_VALUE_COUNT:
            message = f"{size} examples through layers of {num_features} features are more than "
            yield Conflict(key, f"{message}{LARGEST_VALUE_COUNT:.3g} values; take a smaller minibatch")


def _missing_rates(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """A device that lists rates, but not that of the format in use, would be priced by a guess."""
    precision, cluster = (as_mapping(given.get(section)) for section in ("precision", "cluster"))
    number_format = precision.get("compute", precision.get("parameters", "float32"))
    for index, device in enumerate(map(as_mapping, as_list(cluster.get("devices")))):
        formats = [pair[0] for pair in as_list(device.get("flop_per_s")) if isinstance(pair, tuple) and pair]
        if formats and device.get("name") is None and "default" not in formats and number_format not in formats:
            advice = f"has no figure for {number_format}, which precision.compute asks for; add `{number_format}: ...`"
            yield Conflict(f"cluster.devices.{index}.compute", advice)


def _in_one_format(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """What needs all numbers in one format."""
    precision, training, planner = (as_mapping(given.get(section)) for section in ("precision", "training", "planner"))
    if precision.get("compute") != "bfloat16":
        return
    if training.get("noise") is True:
        yield Conflict("training.noise", "is measured in float32 or float64, precision.compute is bfloat16; remove it")
    if "sharded" in as_list(planner.get("strategies")):
        yield Conflict("planner.strategies", "sharded computes in float32 or float64, precision.compute is bfloat16; "
                       "remove it")  # fmt: skip


def _scaled_classes(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """A class has no mean."""
    data, loss = as_mapping(given.get("data")), as_mapping(given.get("model")).get("loss", "cross_entropy")
    if data.get("standardise_targets") is True and loss == "cross_entropy":
        yield Conflict("data.standardise_targets", "is for model.loss: mse, this is cross_entropy; remove it")
