"""Loss and accuracy on held-out examples, on any split: every replica takes its share of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from partition.data.dataset import Dataset
from partition.data.rows import Examples, read_rows
from partition.graph import LossRecord
from partition.ops.losses import summed_loss, summed_weight
from partition.plan import Candidate, Search
from partition.plan.microbatches import microbatch_sizes
from partition.record import Final
from partition.runtime.world import World, share_all


class Predictor(Protocol):
    """What can be evaluated: the ranks of a candidate that live in this process."""

    search: Search
    candidate: Candidate
    world: World

    def predict(self, x: Examples, examples: NDArray[np.int64], replica: int) -> Iterator[NDArray[Any]]:
        """The logits of the given rows in portions; none where they end up in another process."""


def evaluate(fleet: Predictor, dataset: Dataset, train_loss: float) -> Final:
    """Loss on the examples held out, and accuracy where the targets are classes; the same on every rank."""
    if dataset.num_test == 0:
        return Final(train_loss=train_loss, test_loss=None, test_accuracy=None)
    world, network = fleet.world, fleet.search.network
    shares = microbatch_sizes(dataset.num_test, world.num_replicas)
    parts = np.split(np.arange(dataset.num_test), np.cumsum(shares)[:-1])
    numbers = {rank: np.zeros(4) for rank in world.ranks}
    # In a replica with several ranks here, any of them speaks for it.
    for replica, rank in {rank // world.ranks_per_replica: rank for rank in world.ranks}.items():
        portions = list(fleet.predict(dataset.test_x, parts[replica], replica))
        if portions:
            targets = np.empty((len(parts[replica]), *dataset.test_y.shape[1:]), dataset.test_y.dtype)
            read_rows(dataset.test_y, parts[replica], targets)
            numbers[rank] = _score(network.loss, np.concatenate(portions), targets)
    loss_sum, num_right, weight, count = np.sum(share_all(world, numbers), axis=0)
    return Final(
        train_loss=train_loss,
        test_loss=float(loss_sum / weight),
        test_accuracy=float(num_right / count) if network.loss.has_class_targets else None,
    )


def _score(loss: LossRecord, logits: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """The summed loss, the number of examples classified rightly, what the examples count, their number."""
    num_right = (logits.argmax(axis=1) == targets).sum() if loss.has_class_targets else 0
    weight = summed_weight(loss, targets)
    return np.array([host_loss(loss, logits, targets) * weight, num_right, weight, len(logits)], dtype=np.float64)


def host_loss(loss: LossRecord, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """The mean loss in float64 on the host, for an evaluation that needs no gradient."""
    o, y = torch.from_numpy(outputs).double(), torch.from_numpy(targets)
    total = summed_loss(loss, o, y if loss.has_class_targets else y.double())
    return float(total) / summed_weight(loss, targets)
