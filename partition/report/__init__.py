"""Tables and words for people, from records alone; no torch."""

from partition.report.comparison import comparison_text
from partition.report.run import run_text

__all__ = ["comparison_text", "run_text"]
