"""What was looked at on a machine and how it stands, one line each; what could not be tried is said to be so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works, and something is worth knowing."""
    FAIL = "fail"
    UNTRIED = "not tried"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    standing: Standing
    detail: str
    """What was found, and what to do where it is not well."""


def is_well(checks: Sequence[Check]) -> bool:
    """Whether nothing failed."""
    return all(check.standing is not Standing.FAIL for check in checks)
