"""What the sections of an experiment have in common: frozen, strict about types, closed to unknown keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

CONFLICT = "conflict"


class Conflict(NamedTuple):
    """A key (dotted, below its section) that does not go with others, and what to change."""

    key: str
    message: str


class Section(BaseModel):
    """Strict: a bool is no integer and "500" is no number; an integer may stand for a float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """What does not go together among the values given.

        The values are as written and may be of a wrong type: the reader of a file asks before they are checked, so that
        a conflict is told along with every other error.
        """
        del given
        return iter(())

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Self:
        for key, message in self.conflicts(self.model_dump(exclude_unset=True)):
            raise PydanticCustomError(CONFLICT, "{key}: {message}", {"key": key, "message": message})
        return self
