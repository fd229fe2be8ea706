"""The computational graph of a network: layers, shapes, operators and variables; no tensors, no torch."""

from partition.graph.activations import ACTIVATION_RECORDS, ActivationRecord, Keeps
from partition.graph.losses import LOSS_RECORDS, LossRecord
from partition.graph.network import Layer, Network, build_network
from partition.graph.program import Category, Program, StageProgram, Variable, build_module_program, build_stage_program
from partition.graph.recompute import Spans, recomputed

__all__ = [
    "ACTIVATION_RECORDS",
    "LOSS_RECORDS",
    "ActivationRecord",
    "Category",
    "Keeps",
    "Layer",
    "LossRecord",
    "Network",
    "Program",
    "Spans",
    "StageProgram",
    "Variable",
    "build_module_program",
    "build_network",
    "build_stage_program",
    "recomputed",
]
