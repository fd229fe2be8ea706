"""What all sections share: nothing unknown, nothing converted, conflicts told by key."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from partition.config.section import Conflict, Section


class Pair(Section):
    low: int = 0
    high: int = 1

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        if "low" in given and "high" in given:
            yield Conflict("high", "{low} and high")


def test_conflicts_are_asked_about_what_was_given() -> None:
    assert Pair(low=3).high == 1
    with pytest.raises(ValidationError, match=r"high: \{low\} and high"):
        Pair(low=0, high=1)


@pytest.mark.parametrize("values", [{"low": True}, {"low": "1"}, {"low": 1.0}, {"lower": 1}])
def test_types_are_strict_and_keys_known(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Pair(**values)
