"""The computational graph as data, made from the instructions of the stage programs."""

from partition.graph.computational.building import build_graph
from partition.graph.computational.nodes import (
    Carry,
    ComputationalGraph,
    Edge,
    EdgeKind,
    GraphKind,
    OperatorNode,
    Phase,
    Role,
    VariableNode,
)

__all__ = [
    "Carry",
    "ComputationalGraph",
    "Edge",
    "EdgeKind",
    "GraphKind",
    "OperatorNode",
    "Phase",
    "Role",
    "VariableNode",
    "build_graph",
]
