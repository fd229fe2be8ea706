"""A checkpoint for other programs, and in another number format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint import find, verify
from partition.runtime import build_module
from partition.runtime.checkpoint import CheckpointWriter, export, held_layers, read_layer, reshard, restore
from partition.runtime.checkpoint.convert import _npz
from partition.runtime.checkpoint.files import DiskError
from tests.runtime.by_hand import build_fleet
from tests.runtime.checkpoint.saved import ADAM, is_equal, run, saved_once, small, state


@pytest.mark.parametrize("activation", ["gelu", "identity"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("file_format", ["safetensors", "npz"])
def test_to_torch_loads_what_is_exported(tmp_path: Path, activation: str, bias: bool, file_format: str) -> None:
    record, fleet = saved_once(tmp_path, activation=activation, bias=bias)
    path = tmp_path / "new" / "model"
    shapes = export(record, path, file_format)
    if file_format == "npz":
        loaded = {name: torch.from_numpy(array) for name, array in np.load(path, allow_pickle=False).items()}
    else:
        loaded = safetensors.torch.load_file(path)
    plain = build_module(small(activation=activation, bias=bias).model, seed=1).to_torch()
    plain.load_state_dict(loaded, strict=True)
    assert {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()} == shapes
    for own, trained in zip(plain.parameters(), fleet.parameters(), strict=True):
        assert torch.equal(own, trained)
    assert list(path.parent.iterdir()) == [path]


def test_numpy_has_bfloat16_as_float32() -> None:
    content = _npz({"0.weight": torch.tensor([1.0, -2.5], dtype=torch.bfloat16)})
    from io import BytesIO

    array = np.load(BytesIO(content))["0.weight"]
    assert (array.dtype, array.tolist()) == (np.float32, [1.0, -2.5])


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    record, _ = saved_once(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="file/model: cannot be written"):
        export(record, tmp_path / "file" / "model", "npz")


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path) -> None:
    record, _ = saved_once(tmp_path)
    (record.path / "layer-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        export(record, tmp_path / "model", "safetensors")
    assert not (tmp_path / "model").exists()


def test_a_copy_is_the_same_and_needs_no_cutting(tmp_path: Path) -> None:
    record, fleet = saved_once(tmp_path / "a")
    path = reshard(record, CheckpointWriter(tmp_path / "b" / "checkpoints", None), None)
    copy = find("latest", tmp_path / "b")
    verify(copy)
    assert (copy.path, copy.facts, copy.files) == (path, record.facts, record.files)
    other = build_fleet(small(), "pipeline-4x4-gpipe")
    restore(copy, held_layers(other))
    assert is_equal(state(other), state(fleet))


def test_a_run_goes_on_in_another_number_format(tmp_path: Path) -> None:
    """float64 holds every float32: converted back, it is what it was. Adam's count of steps is float32 in both."""
    record, _ = saved_once(tmp_path / "a", optimizer=ADAM)
    writer = CheckpointWriter(tmp_path / "b" / "checkpoints", None)
    reshard(record, writer, "float64")
    wide = find("latest", tmp_path / "b")
    assert wide.facts.number_format == "float64"
    assert wide.facts.experiment["precision"] == {"parameters": "float64", "compute": "float64"}
    metrics, _ = run(small(4, optimizer=ADAM, number_format="float64"), "whole", writer.directory, resume="latest")
    assert [one.step for one in metrics] == [3, 4]
    back = CheckpointWriter(tmp_path / "c" / "checkpoints", None)
    reshard(find("2", tmp_path / "b"), back, "float32")
    assert [file.sha256 for file in find("latest", tmp_path / "c").files] == [file.sha256 for file in record.files]


def test_a_value_too_large_for_the_format_is_told(tmp_path: Path) -> None:
    record, _ = saved_once(tmp_path / "a", number_format="float64")
    layers = {index: read_layer(record, index) for index in range(4)}
    layers[2]["bias"][0] = 1e300
    writer = CheckpointWriter(tmp_path / "large" / "checkpoints", None)
    writer.commit(record.facts, writer.write_layers(2, layers))
    target = CheckpointWriter(tmp_path / "b" / "checkpoints", None)
    with pytest.raises(CheckpointError, match="bias of layer 2 has values that float32 cannot hold"):
        reshard(find("latest", tmp_path / "large"), target, "float32")
    assert list(target.directory.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    record, _ = saved_once(tmp_path)
    with pytest.raises(PartitionError, match="step-00000002 is there already; choose another place with --out"):
        reshard(record, CheckpointWriter(tmp_path / "checkpoints", None), "float64")
    verify(record)
