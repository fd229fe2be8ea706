"""Devices are checked before training begins: that they are there, mix, and fit the host together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from partition.config import ExperimentConfig
from partition.errors import RunError
from partition.plan import Search
from partition.runtime import check_devices, machine
from tests.runtime.by_hand import find

Make = Callable[..., ExperimentConfig]
SPLITS = {"num_microbatches": (4,), "num_stages": (2, 3, 4)}


def check_with(make_config: Make, monkeypatch: pytest.MonkeyPatch, free: Callable[[int], int | None]) -> None:
    """Check a candidate whose devices need so many bytes together against a machine with `free` of them."""
    search = Search(make_config(planner=SPLITS))
    candidate = find(search, "pipeline-3x4-1f1b")
    needed = sum(stage.memory.peak_bytes for stage in candidate.stages)
    monkeypatch.setattr(machine, "host_free_bytes", lambda: free(needed))
    check_devices(search, candidate)


def test_all_simulated_devices_together_must_fit_the_host(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    check_with(make_config, monkeypatch, lambda needed: needed)
    with pytest.raises(RunError, match=r"^pipeline-3x4-1f1b needs .* of this machine's memory, .* are free; [^\n]*$"):
        check_with(make_config, monkeypatch, lambda needed: needed - 1)


def test_a_host_that_does_not_say_is_trusted(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    check_with(make_config, monkeypatch, lambda _: None)


def test_this_host_says_what_is_free() -> None:
    free = machine.host_free_bytes()
    assert free is None or 2**20 < free < 2**50


@pytest.mark.parametrize(("there", "is_refused"), [(0, True), (2, True), (3, False)])
def test_cuda_devices_must_be_there(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, there: int, is_refused: bool
) -> None:
    config = make_config(planner=SPLITS)
    cuda = tuple(device.model_copy(update={"kind": "cuda"}) for device in config.cluster.devices)
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": cuda})})
    search = Search(config)
    candidate = find(search, "pipeline-3x4-1f1b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    if not is_refused:
        check_devices(search, candidate)
        return
    with pytest.raises(RunError, match=rf"takes 3 CUDA devices of this machine, torch sees {there}; [^\n]*$"):
        check_devices(search, candidate)


def test_simulated_and_real_devices_do_not_mix(make_config: Make) -> None:
    """One summary would give the wall's seconds for the cost model's."""
    config = make_config(planner=SPLITS)
    simulated, other, *rest = config.cluster.devices
    devices = (simulated, other.model_copy(update={"kind": "cpu"}), *rest)
    cluster = config.cluster.model_copy(update={"devices": devices})
    search = Search(config.model_copy(update={"cluster": cluster}))
    mixed = next(
        one
        for one in search.candidates()
        if one.strategy == "pipeline" and len({stage.device.split(":")[0] for stage in one.stages}) > 1
    )
    with pytest.raises(RunError, match=r"devices of kind cpu and simulated, .* give all devices"):
        check_devices(search, mixed)


def test_missing_cuda_device_is_refused_with_both_figures(make_config: Make) -> None:
    config = make_config()
    cuda = config.cluster.devices[0].model_copy(update={"kind": "cuda"})
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": (cuda,)})})
    search = Search(config)
    whole = next(one for one in search.candidates() if one.name == "whole")
    if torch.cuda.device_count() == 0:
        with pytest.raises(RunError, match="takes 1 CUDA devices of this machine, torch sees 0"):
            check_devices(search, whole)


def test_host_that_is_too_small_is_refused(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(make_config())
    whole = next(one for one in search.candidates() if one.name == "whole")
    monkeypatch.setattr(machine, "host_free_bytes", lambda: 1024)
    with pytest.raises(RunError, match=r"1\.0 KiB are free"):
        check_devices(search, whole)
