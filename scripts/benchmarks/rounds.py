"""Pairs of predicted and measured, each measured in several rounds.

Others use the host of a virtual machine, and slow it down for seconds or minutes. In every round an experiment is
profiled and run one right after the other, so that both see the same machine; rounds are minutes apart, and of each
experiment the pair with the median error counts. All errors are kept in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ROUNDS = 3


def middle(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of one experiment's rows, one of each round, that with the median `error`, and beside it the errors of all."""
    ordered = sorted(rows, key=lambda row: float(row["error"]))
    return {**ordered[len(ordered) // 2], "errors": [row["error"] for row in rows]}
