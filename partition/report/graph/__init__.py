"""The computational graph for people: drawn on paper, as a table, as JSON and as DOT."""

from partition.report.graph.subject import Subject

__all__ = ["Subject"]
