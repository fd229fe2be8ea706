"""Ranks that were started differently are told apart."""

from __future__ import annotations

import pytest

from partition.errors import PartitionError
from partition.runtime.agreement import check_agreement


def test_another_version_of_torch_is_named() -> None:
    with pytest.raises(PartitionError, match=r"^rank 2 has torch 2\.12\.0, rank 0 has 2\.13\.0; start every rank"):
        check_agreement([{"torch": "2.13.0"}, {"torch": "2.13.0"}, {"torch": "2.12.0"}])
