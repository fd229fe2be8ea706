"""Loss and accuracy on held-out examples, on any split: every replica takes its share of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from partition.data.dataset import Dataset
from partition.plan.microbatches import microbatch_sizes
from partition.record import Final
from partition.runtime.workers import Fleet, Worker


def evaluate(fleet: Fleet, dataset: Dataset, train_loss: float) -> Final:
    """Loss on the examples held out, and accuracy where the targets are classes; the same on every rank."""
    if dataset.num_test == 0:
        return Final(train_loss=train_loss, test_loss=None, test_accuracy=None)
    shares = microbatch_sizes(dataset.num_test, fleet.candidate.num_replicas)
    parts = np.split(np.arange(dataset.num_test), np.cumsum(shares)[:-1])
    numbers = {worker.rank: np.zeros(3) for worker in fleet.workers}
    for replica in sorted({worker.replica for worker in fleet.workers}):
        portions = list(fleet.predict(dataset.test_x, parts[replica], replica))
        if portions:
            rank = next(worker.rank for worker in fleet.workers if _has_logits(fleet, worker, replica))
            numbers[rank] = _score(fleet, np.concatenate(portions), dataset.test_y[parts[replica]])
    loss_sum, num_right, count = np.sum(fleet.share([numbers[worker.rank] for worker in fleet.workers]), axis=0)
    has_classes = fleet.search.network.loss.has_class_targets
    return Final(
        train_loss=train_loss,
        test_loss=float(loss_sum / count),
        test_accuracy=float(num_right / count) if has_classes else None,
    )


def _has_logits(fleet: Fleet, worker: Worker, replica: int) -> bool:
    return worker.replica == replica and fleet.candidate.num_stages - 1 in worker.stages


def _score(fleet: Fleet, logits: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """The summed loss, the number of examples classified rightly, the number of examples."""
    network, count = fleet.search.network, len(logits)
    num_right = (logits.argmax(axis=1) == targets).sum() if network.loss.has_class_targets else 0
    return np.array([host_loss(network.loss.name, logits, targets) * count, num_right, count], dtype=np.float64)


def host_loss(name: str, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """The mean loss in float64 on the host, for an evaluation that needs no gradient."""
    o, y = torch.from_numpy(outputs).double(), torch.from_numpy(targets)
    if name == "mse":
        return float(torch.nn.functional.mse_loss(o, y.double()))
    return float(torch.nn.functional.cross_entropy(o, y))
