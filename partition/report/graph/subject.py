"""What is shown of a graph: the graph itself, the size of a microbatch, and where its stages are."""

from __future__ import annotations

from dataclasses import dataclass

from partition.graph.computational import Carry, ComputationalGraph, GraphKind, VariableNode

KIND_WORDS = {
    GraphKind.FORWARD: "forward",
    GraphKind.BACKWARD: "backward",
    GraphKind.SECOND_ORDER: "second order",
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A graph with the figures of a microbatch of `rows` examples."""

    name: str
    """Of the experiment."""
    graph: ComputationalGraph
    rows: int
    itemsize: int
    devices: tuple[str, ...] = ()
    """Of each stage; empty where there is no plan."""
    candidate: str | None = None

    def kept_bytes(self, node: VariableNode) -> int:
        """What its buffer takes from the forward to the backward; 0 where it is not kept."""
        return self.num_bytes(node) if node.is_kept else 0

    def stage_kept_bytes(self, stage: int) -> int:
        """What a stage holds of a microbatch from its forward to its backward."""
        return sum(self.num_bytes(node) for node in self.graph.kept if node.stage == stage)

    def num_bytes(self, node: VariableNode) -> int:
        """What its buffer takes; 0 for what lives as long as its stage."""
        return node.buffer.num_bytes(self.rows, self.itemsize) if node.buffer else 0

    def carried_bytes(self, carry: Carry) -> int:
        """What a microbatch carries over a boundary."""
        return self.num_bytes(next(node for node in self.graph.variables if node.id == carry.source))

    @property
    def title(self) -> str:
        """One line."""
        layers = self.graph.segments[-1][1] + 1
        of = f" of {self.candidate}" if self.candidate else ""
        stages = f" on {self.graph.num_stages} stages" if self.graph.num_stages > 1 else ""
        plural = "layer" if layers == 1 else "layers"
        return (
            f"{self.name}: {KIND_WORDS[self.graph.kind]} graph{of}, {layers} {plural}{stages}, "
            f"a microbatch of B = {self.rows}"
        )
