"""Checkpoints with their tensors: written by the ranks that hold them, read layer by layer onto any split."""

from partition.runtime.checkpoint.agreement import sharing
from partition.runtime.checkpoint.convert import export, reshard
from partition.runtime.checkpoint.layers import HeldLayer, held_layers, layer_tensors, restore_layer
from partition.runtime.checkpoint.reader import read_layer, restore
from partition.runtime.checkpoint.saver import Saver
from partition.runtime.checkpoint.writer import CheckpointWriter

__all__ = [
    "CheckpointWriter",
    "HeldLayer",
    "Saver",
    "export",
    "held_layers",
    "layer_tensors",
    "read_layer",
    "reshard",
    "restore",
    "restore_layer",
    "sharing",
]
