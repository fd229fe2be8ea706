"""What is measured in place of a network: fewer of its equal layers, in steps that fit, on one device.

stand-in    of a run of equal layers as many as fill the caches, so that each distinct shape stands among its neighbours
tiny        layers so small that a step is nearly all Python
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from partition.config import ExperimentConfig, ModelConfig
from partition.data.stores import free_bytes
from partition.errors import PartitionError
from partition.graph import build_network
from partition.plan import Candidate, Search
from partition.plan.shape import Shape
from partition.plan.split import Segment
from partition.runtime.world import World, share_largest

FILLS_CACHES_BYTES = 64 * 2**20
"""Parameters of a stand-in beyond which it is not made deeper: twice what the caches of large servers hold."""
MOST_MICROBATCHES = 8
"""Of a step of the stand-in."""
HALVINGS = 6
"""Microbatch sizes are the minibatch, its half and so on, this many times, and one example."""
ASSUMED_FREE_BYTES = 2**34
"""Of a host that does not say."""
TINY_WIDTH = 8


def stand_in_search(config: ExperimentConfig, share_bytes: int, num_devices: int = 1) -> Search:
    """What prices and lays out the stand-in of an experiment on so many devices."""
    return _search_of(_stand_in(config), share_bytes, num_devices)


def tiny_search(config: ExperimentConfig, share_bytes: int) -> Search:
    """What prices and lays out steps that are nearly all Python."""
    return _search_of(_tiny(config), share_bytes)


def check_room(config: ExperimentConfig, share_bytes: int) -> None:
    """Raise PartitionError where no size of the layers can be measured with so many bytes."""
    fitting_sizes(stand_in_search(config, share_bytes), worthwhile_sizes(config.training.minibatch_size))


def fitting_candidates(search: Search) -> list[Candidate]:
    """A step of the stand-in with full backwards for every size of microbatches that fits, in increasing order."""
    sizes = fitting_sizes(search, worthwhile_sizes(search.minibatch_size))
    return [candidates(search, rows)[0] for rows in sizes]


def _stand_in(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment on fewer of its equal layers: as many as fill the caches, or all."""
    model = config.model
    depth = len(build_network(model).layers)
    for repeats in range(2, depth + 3):
        shorter = _of_shorter_runs(model, repeats)
        elements = build_network(shorter).parameter_elements
        if shorter == model or elements * config.precision.parameter_itemsize >= FILLS_CACHES_BYTES:
            break
    return config.model_copy(update={"model": shorter})


def _of_shorter_runs(model: ModelConfig, repeats: int) -> ModelConfig:
    """The model with every run of equal layers cut to one more than so many: the first of a run may read other widths.

    Of equal blocks it suffices to have as many as that.
    """
    if model.blocks is not None:
        blocks = (block.model_copy(update={"repeat": min(block.repeat, repeats)}) for block in model.blocks)
        return model.model_copy(update={"blocks": tuple(blocks)})
    hidden = tuple(width for _, run in groupby(model.hidden_features) for width in list(run)[: repeats + 1])
    return model.model_copy(update={"hidden_features": hidden})


def _tiny(config: ExperimentConfig) -> ExperimentConfig:
    """A network whose steps are nearly all Python."""
    hidden = (TINY_WIDTH,) * 2
    widths = {"in_features": TINY_WIDTH, "hidden_features": hidden, "out_features": TINY_WIDTH}
    model = config.model.model_copy(update={**widths, "blocks": None, "class_weights": None})
    return config.model_copy(update={"model": model})


def smallest_share(world: World, ranks_on_host: int) -> int:
    """Bytes that every rank can have of its host, the least of all ranks; all call it together.

    What fits is decided by it, so all must have the same: hosts differ, and a host's free memory changes between two
    looks at it.
    """
    mine = (free_bytes() or ASSUMED_FREE_BYTES) // ranks_on_host * 3 // 4
    return int(-share_largest(world, [-mine])[0])


def _search_of(config: ExperimentConfig, share_bytes: int, num_devices: int = 1) -> Search:
    """The experiment on devices alike: GPUs with their limit, elsewhere a share of the host each."""
    device = config.cluster.devices[0]
    if device.kind != "cuda":
        device = device.model_copy(update={"name": None, "kind": "cpu", "memory_bytes": max(1, share_bytes)})
    cluster = config.cluster.model_copy(update={"devices": (device,) * num_devices})
    # What is asked of the layers and devices of the experiment, its stand-in has none of.
    asked = ("costs", "minibatch_sizes", "keep_together", "pinned")
    planner = config.planner.model_copy(update=dict.fromkeys(asked))
    return Search(config.model_copy(update={"cluster": cluster, "planner": planner}))


def worthwhile_sizes(minibatch_size: int) -> list[int]:
    """Microbatch sizes worth knowing: those of halvings of the minibatch, and one example."""
    return sorted({1, *(-(-minibatch_size // (1 << shift)) for shift in range(HALVINGS + 1))})


def one_step(search: Search, rows: int, count: int, schedule: str) -> Candidate:
    """So many microbatches of so many examples on the one device."""
    shape = Shape(name="profile", strategy="accumulate", minibatch_size=rows * count, num_microbatches=count,
                  schedule=schedule)  # fmt: skip
    return search.price(shape, [Segment(0, 0, search.network.num_layers - 1)])


def candidates(search: Search, rows: int) -> list[Candidate]:
    """What is measured at one size, where it fits: a step with full backwards, and one with I and W."""
    return [candidate for candidate in _both(search, rows) if candidate.feasible]


def _both(search: Search, rows: int) -> list[Candidate]:
    count = max(1, min(MOST_MICROBATCHES, search.minibatch_size // rows))
    return [one_step(search, rows, count, schedule) for schedule in ("1f1b", "zb_h1")]


def fitting_sizes(search: Search, sizes: Sequence[int]) -> list[int]:
    """The sizes of which the device holds a step, in increasing order as they are given.

    Raises PartitionError where it holds none.
    """
    found = [rows for rows in sizes if candidates(search, rows)]
    if not found:
        raise refusal(search, _both(search, sizes[0])[0])
    return found


def refusal(search: Search, candidate: Candidate) -> PartitionError:
    """What is said where a step is too large to be measured."""
    return PartitionError(
        f"{search.network.num_layers} layers cannot be measured here: a step of {candidate.minibatch_size} examples, "
        f"{candidate.microbatch_size} at a time, {candidate.reason}; free memory, or measure a smaller model"
    )
