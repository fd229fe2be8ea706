"""Checks as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from partition.record.checks import Check
from partition.report.table import table


def checks_text(checks: Sequence[Check]) -> str:
    """One line a check."""
    return table(
        ("check", "", "found"), [(check.name, check.standing, check.detail) for check in checks], left=(0, 1, 2)
    )
