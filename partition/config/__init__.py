"""The experiment: its schema, its YAML file, overrides, and every error of a file at once."""

from partition.config.loading import load_config
from partition.config.schema import (
    CheckpointConfig,
    ClusterConfig,
    DataConfig,
    DeviceConfig,
    ExperimentConfig,
    LinkConfig,
    LinksConfig,
    ModelConfig,
    OptimizerConfig,
    PlannerConfig,
    PrecisionConfig,
    TrainingConfig,
)
from partition.config.writing import dump_config, flatten, resolve

__all__ = [
    "CheckpointConfig",
    "ClusterConfig",
    "DataConfig",
    "DeviceConfig",
    "ExperimentConfig",
    "LinkConfig",
    "LinksConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PlannerConfig",
    "PrecisionConfig",
    "TrainingConfig",
    "dump_config",
    "flatten",
    "load_config",
    "resolve",
]
