"""No tensor comes out of a file that is not as it was written."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from partition.errors import CheckpointError
from partition.record.checkpoint import CheckpointRecord, Facts
from partition.runtime.checkpoint import CheckpointWriter, held_layers, read_layer, restore
from tests.record.checkpoint.made import make_checkpoint, make_facts
from tests.runtime.by_hand import build_fleet
from tests.runtime.checkpoint.saved import is_equal, saved_once, small, state


def test_every_layer_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    record, fleet = saved_once(tmp_path)
    read = {f"{i}.{name}": tensor for i in range(4) for name, tensor in read_layer(record, i).items()}
    assert is_equal(read, state(fleet))


def test_any_flipped_byte_and_any_lost_one_is_noticed(tmp_path: Path) -> None:
    record, _ = saved_once(tmp_path)
    path = record.path / "layer-00003.safetensors"
    content = path.read_bytes()
    for index in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        with pytest.raises(CheckpointError, match=r"layer-00003\.safetensors: is damaged: SHA-256 is"):
            read_layer(record, 3)
        path.write_bytes(content[:index])
        with pytest.raises(CheckpointError, match=f"is damaged: {index} bytes, expected {len(content)}"):
            read_layer(record, 3)


class Payload:
    """What a pickle would have run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("it ran",))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage that is no header",
        (2**62).to_bytes(8, "little") + b"{}",
        b"\x02\0\0\0\0\0\0\0[]",
        pickle.dumps(Payload()),
        safetensors.torch.save({"weight": torch.zeros(2)})[:-1],
    ],
)
def test_a_file_that_is_no_safetensors_is_refused_even_with_the_right_digest(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_checkpoint(tmp_path, make_facts(), [content])
    with pytest.raises(CheckpointError, match=r"layer-00000\.safetensors: is damaged: ") as caught:
        read_layer(record, 0)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_layer_that_is_not_there(tmp_path: Path) -> None:
    record, _ = saved_once(tmp_path)
    for index in (-1, 4):
        with pytest.raises(CheckpointError, match=f"has 4 layers, there is no layer {index}"):
            read_layer(record, index)


def rewritten(record: CheckpointRecord, folder: Path, layer: dict[str, torch.Tensor]) -> CheckpointRecord:
    """The same checkpoint with another first layer, properly written."""
    layers = {index: read_layer(record, index) for index in range(4)} | {0: layer}
    writer, facts = CheckpointWriter(folder, keep=None), record.facts
    assert isinstance(facts, Facts)
    from partition.record.checkpoint import read_document

    return read_document(writer.commit(facts, writer.write_layers(record.step, layers)))


def test_an_unknown_tensor_and_a_wrong_shape_are_refused_by_name(tmp_path: Path) -> None:
    record, _ = saved_once(tmp_path)
    first, fleet = read_layer(record, 0), build_fleet(small(), "pipeline-2x4-1f1b")
    for name, tensor, message in (
        ("extra", torch.ones(1), "'extra' is unknown"),
        ("weight", torch.ones(3, 3), r"weight is \(3, 3\) of float32, expected \(10, 12\)"),
    ):
        changed = rewritten(record, tmp_path / name, {**first, name: tensor})
        with pytest.raises(CheckpointError, match=f"step-00000002/layer-00000.safetensors: {message}"):
            restore(changed, held_layers(fleet))
