"""What a GPU is asked for: what can be said of it without one."""

from __future__ import annotations

import pytest
import torch

from partition.runtime.cuda import SETTINGS, ask_for_exact_blocks, prepare

ALLOCATOR, UNIFIED = "PYTORCH_ALLOC_CONF", "TORCH_CUBLASLT_UNIFIED_WORKSPACE"


def test_blocks_are_cut_to_size_and_workspaces_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    told: list[str] = []
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", told.append)
    ask_for_exact_blocks(environment)
    assert environment == {ALLOCATOR: SETTINGS, UNIFIED: "1"}
    assert told == [SETTINGS]


@pytest.mark.parametrize("name", [ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF"])
def test_what_a_user_has_set_stays(name: str) -> None:
    environment = {name: "max_split_size_mb:64", UNIFIED: "0"}
    ask_for_exact_blocks(environment)
    assert environment == {name: "max_split_size_mb:64", UNIFIED: "0"}


def test_nothing_is_done_for_a_cpu() -> None:
    prepare(torch.device("cpu"))
    assert not torch.cuda.is_initialized()
