"""Plain scalars: YAML 1.2, where PyYAML alone would read another century's rules."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.config.scalars import read_plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e-4", 1e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1E+2", -100.0),
        ("012", 12),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("-.inf", -math.inf),
    ],
)
def test_numbers_truth_values_and_null(text: str, value: object) -> None:
    read = read_plain_scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["no", "yes", "on", "off", "y", "1_000", "1f1b", "1:30", "2024-01-01", "e5", ".", "0b1"]
)
def test_words_stay_words(text: str) -> None:
    assert read_plain_scalar(text) == text


def test_not_a_number() -> None:
    value = read_plain_scalar(".nan")
    assert isinstance(value, float)
    assert math.isnan(value)


def test_a_number_too_long_to_convert_stays_text() -> None:
    assert read_plain_scalar("9" * 5000) == "9" * 5000


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_prints_is_read_back(number: float) -> None:
    assert read_plain_scalar(repr(number)) == number
