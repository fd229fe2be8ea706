"""What is first wrong with a document that a schema refuses, in words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from partition.config.first_problem import first_problem, short


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, lt=10)] = 1
    name: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()


class Document(BaseModel):
    part: Part

    @model_validator(mode="after")
    def _check(self) -> Document:
        if self.part.count == 7:
            raise ValueError("seven is never right")
        return self


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "part: is missing"),
        ([], "the whole: is empty"),
        ({"part": []}, "part: is empty"),
        ({"part": {"sizes": [{"a": 1}]}}, "part.sizes.0: is an object"),
        ({"part": {"count": 0}}, "part.count: 0 is too small; the least is 1"),
        ({"part": {"count": 10}}, "part.count: 10 is too large; it must be less than 10"),
        ({"part": {"count": 7}}, "the whole: seven is never right"),
        ({"part": {"count": "x"}}, 'part.count: "x" is not valid here'),
        ({"part": {"name": "c"}}, 'part.name: "c" is not valid here'),
        ({"part": {"other": 1}}, "part.other: is not known"),
    ],
)
def test_it_is_told_with_its_place(document: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Document.model_validate(document)
    assert first_problem(caught.value) == words


def test_the_place_is_within_the_document() -> None:
    with pytest.raises(ValidationError) as caught:
        Part.model_validate({"count": 0})
    assert first_problem(caught.value, "part").startswith("part.count: ")


def test_what_is_long_or_cannot_be_printed_is_shown_on_one_line() -> None:
    assert len(short("x" * 1000)) == 80
    assert short("a\nb") == "'a\\nb'"
