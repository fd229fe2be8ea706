"""A checkpoint in another form: a plain state dict for torch or NumPy, or the same run in another number format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from partition.errors import CheckpointError, PartitionError
from partition.record.checkpoint import CheckpointRecord, Facts, FileRecord, list_checkpoints, verify
from partition.runtime.checkpoint.files import check_room, explaining, prepare_file, put_in_place
from partition.runtime.checkpoint.layers import is_parameter
from partition.runtime.checkpoint.reader import read_layer
from partition.runtime.checkpoint.writer import CheckpointWriter


def export(record: CheckpointRecord, path: Path, file_format: str) -> dict[str, tuple[int, ...]]:
    """Write the parameters as one file under the names of `module.to_torch()`; their shapes by name.

    `file_format` is safetensors or npz. The optimizer's state is left out.

    Raises CheckpointError where the checkpoint is damaged, DiskError where the file cannot be written.
    """
    tensors = state_dict(record)
    content = safetensors.torch.save(tensors) if file_format == "safetensors" else _npz(tensors)
    check_room(path, len(content))
    with explaining(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(prepare_file(path, content), path)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def state_dict(record: CheckpointRecord) -> dict[str, Tensor]:
    """All parameters under the names of a `torch.nn.Sequential` of Linear layers and activations, or of blocks.

    Without an activation the Linear layers follow each other: 0.weight, 0.bias, 1.weight. With one: 0, 2, 4. Blocks
    follow each other too, with the names of their parts: 3.norm.weight, 3.up.weight.
    """
    model = record.facts.experiment.get("model")
    found = model if isinstance(model, dict) else {}
    stride = 1 if found.get("activation") == "identity" or found.get("blocks") else 2
    layers = ((index * stride, read_layer(record, index)) for index in range(len(record.files)))
    return {f"{place}.{name}": layer[name] for place, layer in layers for name in _parameters(layer)}


def _parameters(layer: Mapping[str, Tensor]) -> list[str]:
    """The names of a layer's parameters, each weight before its bias."""
    return sorted(filter(is_parameter, layer), key=lambda name: (*name.split(".")[:-1], name.endswith("bias")))


def _npz(tensors: Mapping[str, Tensor]) -> bytes:
    """NumPy has no bfloat16; float32 holds every value of it."""
    wide = {name: tensor.float() if tensor.dtype is torch.bfloat16 else tensor for name, tensor in tensors.items()}
    stream = BytesIO()
    np.savez(stream, allow_pickle=False, **{name: tensor.numpy() for name, tensor in wide.items()})
    return stream.getvalue()


def reshard(record: CheckpointRecord, writer: CheckpointWriter, number_format: str | None) -> Path:
    """Verify a checkpoint and commit it anew elsewhere, in another number format if one is given.

    Files are per layer, so that any number of stages reads them as they are: nothing is cut anew.

    Raises CheckpointError where it is damaged or a value does not fit the format, DiskError where there is no room.
    """
    verify(record)
    if record.path in list_checkpoints(writer.directory):
        raise PartitionError(
            f"{writer.directory}: {record.path.name} is there already; choose another place with --out"
        )
    facts = record.facts if number_format is None else _with_format(record, number_format)
    try:
        return writer.commit(facts, list(_write_converted(record, writer, number_format)))
    except PartitionError:
        writer.abandon(record.step)
        raise


def _write_converted(
    record: CheckpointRecord, writer: CheckpointWriter, number_format: str | None
) -> Iterator[FileRecord]:
    """One layer at a time, so that the host holds one."""
    for index in range(len(record.files)):
        tensors = read_layer(record, index)
        if number_format is not None:
            tensors = {
                name: _convert(record, index, name, tensor, getattr(torch, number_format))
                for name, tensor in tensors.items()
            }
        yield from writer.write_layers(record.step, {index: tensors})


def _convert(record: CheckpointRecord, index: int, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """In the new format; the optimizer's count of steps keeps its own."""
    if name.endswith(".step") or not tensor.is_floating_point():
        return tensor
    converted = tensor.to(dtype)
    if bool((converted.isinf() & ~tensor.isinf()).any()):
        raise CheckpointError(
            f"{record.path}: {name} of layer {index} has values that {_name(dtype)} cannot hold; keep its format"
        )
    return converted


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _with_format(record: CheckpointRecord, number_format: str) -> Facts:
    experiment = {**record.facts.experiment, "precision": {"parameters": number_format, "compute": number_format}}
    return replace(record.facts, number_format=number_format, experiment=experiment)
