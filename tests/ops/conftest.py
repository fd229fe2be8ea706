"""What the tests of the hand-written pairs share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

AssertEqualInNorm = Callable[[Tensor, Tensor], None]
AllocatorEvents = Callable[[Callable[[], object]], list[int]]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _on_one_gpu() -> Iterator[None]:
    """Under scripts/test_cuda.sh tensors are made on a GPU."""
    torch.set_default_device(os.environ.get("PARTITION_TEST_DEVICE"))
    yield
    torch.set_default_device(None)


@pytest.fixture
def assert_equal_in_norm() -> AssertEqualInNorm:
    """Equality to 1e-12 of the expected tensor's norm, in float64."""

    def check(actual: Tensor, expected: Tensor) -> None:
        assert actual.dtype == expected.dtype == torch.float64
        assert actual.shape == expected.shape
        error, norm = float((actual - expected).norm()), float(expected.norm())
        assert error <= 1e-12 * norm, f"off by {error} of {norm}"

    return check


@pytest.fixture
def allocator_events() -> AllocatorEvents:
    """Bytes of every allocation (positive) and release (negative) on the CPU while a function runs."""

    def record(function: Callable[[], object]) -> list[int]:
        with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as session:
            function()
        results = session.profiler.kineto_results
        return [event.nbytes() for event in results.events() if event.name() == "[memory]"]

    return record


@pytest.fixture(params=[1, 3], ids="{}-threads".format)
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Some kernels take a buffer per thread, so one thread proves nothing about two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
