"""The computational graph of a network: layers, shapes, operators and variables; no tensors, no torch."""

from partition.graph.activations import ACTIVATION_RECORDS, ActivationRecord, Keeps
from partition.graph.layers import Block, Layer, Unit
from partition.graph.losses import LOSS_RECORDS, LossRecord
from partition.graph.network import Network, build_network
from partition.graph.program import Category, Program, StageProgram, Variable, build_module_program, build_stage_program
from partition.graph.recompute import Spans, recomputed
from partition.graph.second_order import build_second_order_program

__all__ = [
    "ACTIVATION_RECORDS",
    "LOSS_RECORDS",
    "ActivationRecord",
    "Block",
    "Category",
    "Keeps",
    "Layer",
    "LossRecord",
    "Network",
    "Program",
    "Spans",
    "StageProgram",
    "Unit",
    "Variable",
    "build_module_program",
    "build_network",
    "build_second_order_program",
    "build_stage_program",
    "recomputed",
]
