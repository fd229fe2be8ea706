"""All measured costs of an experiment on this machine: layers, messages, what Python adds, with their provenance."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime

import torch

from partition.config import ExperimentConfig
from partition.costs.profile import CostsFile, Machine, Messages
from partition.errors import PartitionError, RunError
from partition.graph import Network, build_network
from partition.record.run import environment
from partition.runtime.alone import measure_alone
from partition.runtime.in_pipeline import messages_in_pipeline
from partition.runtime.joining import join, leave
from partition.runtime.messages import measure_messages, sizes_of
from partition.runtime.process import Process
from partition.runtime.processes import ProcessWorld
from partition.runtime.profiling import BUDGET_S, Layers, measure_layers
from partition.runtime.stand_in import check_room, smallest_share
from partition.runtime.world import LocalWorld


def measure(config: ExperimentConfig, budget_s: float = BUDGET_S) -> CostsFile | None:
    """Measure as the only process, or as one of those that torchrun started; None on all but the first.

    `budget_s` is what the layers may take, beside the least number of repetitions.

    Raises PartitionError and RunError where something cannot be measured here.
    """
    start_s = time.perf_counter()
    is_cuda = config.cluster.devices[0].kind == "cuda"
    process = Process.of_environment()
    check_devices(config, process.local_world_size if process else 1)
    if process is None or process.world_size == 1:
        world = LocalWorld(1, 1)
        layers = measure_layers(config, world, smallest_share(world, 1), budget_s)
        return _file(config, layers, None, num_ranks=1, start_s=start_s)
    join(process, config.training.timeout_s)
    if is_cuda:
        torch.cuda.set_device(process.local_rank)
    file = _measure_together(config, process, start_s, budget_s)
    leave()
    return file if process.rank == 0 else None


def _measure_together(config: ExperimentConfig, process: Process, start_s: float, budget_s: float) -> CostsFile:
    """What the ranks measure, all busy at once."""
    is_cuda = config.cluster.devices[0].kind == "cuda"
    world = ProcessWorld(process, num_replicas=1, is_cuda=is_cuda, timeout_s=config.training.timeout_s)
    try:
        share_bytes = smallest_share(world, process.local_world_size)
        check_room(config, share_bytes)
        messages = _messages(config, world)
        layers = measure_layers(config, world, share_bytes, budget_s)
        alone = measure_alone(config, world, share_bytes, budget_s)
        apart = _file(config, layers, messages, num_ranks=process.world_size, start_s=start_s)
        messages = messages_in_pipeline(apart, config, world, share_bytes)
    except PartitionError as error:
        # What cannot be measured is found by all ranks alike; the first tells of it.
        error.is_told = process.rank > 0 and not isinstance(error, RunError)
        raise
    finally:
        world.close()
    file = _file(config, layers, messages, num_ranks=process.world_size, start_s=start_s)
    return file.model_copy(update={"alone": alone})


def _messages(config: ExperimentConfig, world: ProcessWorld) -> Messages:
    """Messages and sums of the sizes that the experiment may need."""
    network = build_network(config.model)
    precision, rows = config.precision, config.training.minibatch_size
    item = precision.parameter_itemsize
    weighted = [part for layer in network.layers for part in layer.weighted]
    gradient_bytes = [elements * item for part in weighted for elements in part.tensor_elements]
    message_bytes = _message_bytes(network, rows, precision.itemsize)
    return measure_messages(world, message_bytes, sizes_of(max(gradient_bytes)), gradient_bytes)


def _file(
    config: ExperimentConfig, layers: Layers, messages: Messages | None, *, num_ranks: int, start_s: float
) -> CostsFile:
    is_cuda = config.cluster.devices[0].kind == "cuda"
    return CostsFile(
        kind="cuda" if is_cuda else "cpu",
        number_format=config.precision.compute,
        optimizer=config.optimizer.name,
        machine=Machine(
            device=torch.cuda.get_device_name() if is_cuda else str(environment()["processor"]),
            host=platform.platform(),
            torch=torch.__version__,
            num_threads=torch.get_num_threads(),
            num_ranks=num_ranks,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            took_s=time.perf_counter() - start_s,
        ),
        operators=layers.operators,
        overheads=layers.overheads,
        messages=messages,
    )


def check_devices(config: ExperimentConfig, needed: int) -> None:
    """Raise RunError where this machine lacks GPUs for so many ranks."""
    there = torch.cuda.device_count()
    if config.cluster.devices[0].kind == "cuda" and there < needed:
        raise RunError(
            f"cluster.devices are of kind cuda, torch sees {there} here and {needed} are to be measured; measure on "
            "the machine that has them"
        )


def _message_bytes(network: Network, rows: int, item: int) -> list[int]:
    """Sizes up to the largest that may go between two stages."""
    widest = max((layer.out_features for layer in network.layers[:-1]), default=network.layers[0].in_features)
    return sizes_of(widest * rows * item)
