"""The experiment: its schema, its YAML file, overrides, and every error of a file at once."""

from partition.config.arguments import check_experiment
from partition.config.loading import AnyConfig, load_cluster, load_config
from partition.config.schema import (
    BlockConfig,
    ChainConfig,
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
    ResidualConfig,
    TrainingConfig,
)
from partition.config.writing import dump_config, flatten, resolve

__all__ = [
    "AnyConfig",
    "BlockConfig",
    "ChainConfig",
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
    "ResidualConfig",
    "TrainingConfig",
    "check_experiment",
    "dump_config",
    "flatten",
    "load_cluster",
    "load_config",
    "resolve",
]
