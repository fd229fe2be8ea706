"""The rows of a minibatch, microbatch by microbatch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from partition.runtime.feed import MinibatchFeed, fed_variables

X = np.arange(12, dtype=np.float32).reshape(6, 2)
CLASSES = np.arange(6, dtype=np.int64) * 10
EXAMPLES = np.array([5, 0, 3, 1], dtype=np.int64)


@pytest.fixture
def feed() -> MinibatchFeed:
    """Four of six examples, shuffled, in microbatches of 3 and 1."""
    return MinibatchFeed(X, CLASSES, EXAMPLES, (3, 1))


def test_every_microbatch_gets_its_own_rows_in_order(feed: MinibatchFeed) -> None:
    first, second = torch.empty(3, 2), torch.empty(1, 2)
    feed("x", 0, first)
    feed("x", 1, second)
    assert torch.equal(torch.cat([first, second]), torch.from_numpy(X[EXAMPLES]))


def test_targets_keep_their_type(feed: MinibatchFeed) -> None:
    targets = torch.empty(3, dtype=torch.int64)
    feed("targets", 0, targets)
    assert targets.tolist() == [50, 0, 30]


def test_the_data_set_is_copied_not_lent(feed: MinibatchFeed) -> None:
    rows = torch.empty(3, 2)
    feed("x", 0, rows)
    rows.zero_()
    assert X[5, 1] == 11


def test_features_need_not_be_contiguous() -> None:
    columns = np.asfortranarray(X)[:, ::-1]
    rows = torch.empty(4, 2)
    MinibatchFeed(columns, CLASSES, EXAMPLES, (4,))("x", 0, rows)
    assert np.array_equal(rows.numpy(), columns[EXAMPLES])


def test_rows_gathered_ahead_are_those_of_the_first_microbatch_and_handed_out_once() -> None:
    x = X.copy()
    feed = MinibatchFeed(x, CLASSES, EXAMPLES, (3, 1))
    feed.gather(("x", "targets"))
    x[:] = -1  # what is gathered is a copy
    assert feed.on_host("x", 1).tolist() == [[-1, -1]]
    assert torch.equal(feed.on_host("x", 0), torch.from_numpy(X[EXAMPLES[:3]]))
    assert feed.on_host("targets", 0).tolist() == [50, 0, 30]
    assert feed.on_host("x", 0).tolist() == [[-1, -1]] * 3


@pytest.mark.parametrize("is_writeable", [False, True])
def test_rows_on_the_host_are_those_of_the_data_set(is_writeable: bool) -> None:
    x, classes = X.copy(), CLASSES.copy()
    for examples in (x, classes):
        examples.flags.writeable = is_writeable
    feed = MinibatchFeed(x, classes, EXAMPLES, (3, 1))
    assert torch.equal(feed.on_host("x", 1), torch.from_numpy(X[EXAMPLES[3:]]))
    assert torch.equal(feed.on_host("targets", 0), torch.from_numpy(CLASSES[EXAMPLES[:3]]))


@pytest.mark.parametrize(
    ("stages", "fed"), [([0], ["x", "targets"]), ([0, 2], ["x"]), ([1, 3], ["targets"]), ([1], [])]
)
def test_rows_are_gathered_for_the_stages_that_read_them(stages: list[int], fed: list[str]) -> None:
    """A single stage reads both inputs and targets."""
    assert fed_variables(stages, 1 if stages == [0] else 4) == fed
