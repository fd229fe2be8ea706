"""Where a run stands."""

import pytest

from partition.record.checkpoint import Position


@pytest.mark.parametrize(("num_steps", "epoch", "minibatch"), [(0, 0, 0), (2, 0, 2), (3, 1, 0), (7, 2, 1)])
def test_steps_are_epochs_and_minibatches(num_steps: int, epoch: int, minibatch: int) -> None:
    assert Position().after(num_steps, 3) == Position(step=num_steps, epoch=epoch, minibatch=minibatch)


def test_steps_in_parts_come_to_the_same() -> None:
    assert Position().after(4, 3).after(3, 3) == Position().after(7, 3)


def test_a_run_that_skipped_the_rest_of_an_epoch_counts_on_from_there() -> None:
    assert Position(step=4, epoch=2).after(3, 3) == Position(step=7, epoch=3)
