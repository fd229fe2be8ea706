"""Reading a checkpoint's tensors: never before the file they stand in has been verified."""

from __future__ import annotations

from collections.abc import Iterable

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from partition.errors import CheckpointError
from partition.record.checkpoint import CheckpointRecord, read_verified
from partition.runtime.checkpoint.layers import HeldLayer, restore_layer


def read_layer(record: CheckpointRecord, index: int) -> dict[str, Tensor]:
    """The tensors of a layer by name, on the host.

    Raises CheckpointError where the file is damaged or the checkpoint has no such layer.
    """
    if not 0 <= index < len(record.files):
        raise CheckpointError(f"{record.path}: has {len(record.files)} layers, there is no layer {index}")
    file = record.files[index]
    content = read_verified(record, file)
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{record.path / file.name}: is damaged: {_one_line(error)}") from None


def restore(record: CheckpointRecord, layers: Iterable[HeldLayer], *, parameters_only: bool = False) -> None:
    """Copy a checkpoint into the layers that live in this process, one layer at a time.

    Raises CheckpointError where a file is damaged or does not fit its layer.
    """
    for layer in layers:
        saved = read_layer(record, layer.index)
        file = record.path / record.files[layer.index].name
        restore_layer(layer.tensors(), saved, file, parameters_only=parameters_only)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
