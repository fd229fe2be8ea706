"""Quantities read and written: exact values, what is refused, and what a reader sees."""

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition import units
from partition.errors import PartitionError
from partition.units import (
    format_bytes,
    format_bytes_per_s,
    format_count,
    format_seconds,
    parse_bytes,
    parse_bytes_per_s,
    parse_flop_per_s,
    parse_seconds,
)

PARSERS = (parse_bytes, parse_bytes_per_s, parse_flop_per_s, parse_seconds)


def test_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(units).failed == 0


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("80 GiB", 80 * 2**30),
        ("76 MiB", 76 * 2**20),
        ("76MIB", 76 * 2**20),
        ("24 GB", 24 * 10**9),
        ("24 gB", 24 * 10**9),
        ("1.5e9 B", 1_500_000_000),
        (".5 kB", 500),
        ("3 bytes", 3),
        ("8 Mbit", 10**6),
        ("8 mbits", 10**6),
        ("8 Gb", 10**9),
        ("8 kb", 1000),
        ("1 EB", 10**18),
        ("1e3", 1000),
        ("  7 B ", 7),
        ("0.1 GiB", 107_374_182),
        (12345, 12345),
        (1.5e9, 1_500_000_000),
        (0, 0),
    ],
)
def test_sizes(text: str | float, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes
    assert isinstance(parse_bytes(text), int)


@pytest.mark.parametrize(
    ("text", "rate_bytes_per_s"),
    [
        ("25 GB/s", 25e9),
        ("1.5 GiB / s", 1.5 * 2**30),
        ("200 Mbit/s", 25e6),
        ("200 Mbps", 25e6),
        ("200 MBps", 200e6),
        ("100 Gb/s", 12.5e9),
        (1e9, 1e9),
    ],
)
def test_data_rates_tell_bits_from_bytes(text: str | float, rate_bytes_per_s: float) -> None:
    assert parse_bytes_per_s(text) == rate_bytes_per_s


@pytest.mark.parametrize("text", ["100 GFLOP/s", "100 gflops", "100 GFLOPS", "100 Gflops/s", "1e11 FLOP/s"])
def test_compute_rates(text: str) -> None:
    assert parse_flop_per_s(text) == 1e11


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("20 us", 20e-6),
        ("20 µs", 20e-6),
        ("20 μs", 20e-6),
        ("5 ns", 5e-9),
        ("3 ms", 3e-3),
        ("60 s", 60),
        ("5 min", 300),
        ("2 Hours", 7200),
        ("1 day", 86400),
        (0.5, 0.5),
    ],
)
def test_durations(text: str | float, duration_s: float) -> None:
    assert parse_seconds(text) == duration_s


REFUSED_TEXTS = ("", " ", "x", "GB", "5 parsecs", "-5", "-5 GB", "nan", "inf", "1e99999", "1e9999", "1_000", "1,000")
REFUSED_VALUES = (-1, -0.5, 10**25, math.nan, math.inf, -math.inf, True, False, None, [1])


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("value", [*REFUSED_TEXTS, *REFUSED_VALUES, "5 5", "5\n6 x", "9" * 5000, "٣"])
def test_refusals_are_one_short_line_with_examples(parse: object, value: object) -> None:
    assert callable(parse)
    with pytest.raises(PartitionError, match=r"write it like .*\(") as caught:
        parse(value)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 250


@pytest.mark.parametrize("parse", PARSERS)
def test_an_integer_too_long_to_print_is_refused(parse: object) -> None:
    assert callable(parse)
    with pytest.raises(PartitionError, match="an integer of 16610 bits"):
        parse(10**5000)


@pytest.mark.parametrize("text", ["24 gb", "24 mb", "24 gib", "24 kib"])
def test_a_small_b_after_a_small_prefix_is_not_guessed(text: str) -> None:
    """Read as bits it would be an eighth of what most people mean; read as bytes it would be wrong for the others."""
    with pytest.raises(PartitionError, match="bits or bytes"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_bytes, "25 GB/s"),
        (parse_bytes, "5 iB"),
        (parse_bytes_per_s, "25 GB"),
        (parse_flop_per_s, "1 GFLOP"),
        (parse_seconds, "5 m"),
        (parse_seconds, "5 MS"),
        (parse_seconds, "5 GB"),
    ],
)
def test_a_unit_of_another_kind_is_refused_by_name(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(PartitionError, match="is no unit of it") as caught:
        parse(text)
    assert repr(text) in str(caught.value)


@given(st.text(max_size=80) | st.integers() | st.floats() | st.booleans() | st.none())
def test_parsers_return_a_finite_number_or_refuse(value: str | float | None) -> None:
    for parse in PARSERS:
        try:
            parsed = parse(value)  # type: ignore[arg-type]
        except PartitionError:
            continue
        assert 0 <= parsed <= 10**24


@given(st.integers(0, 10**24))
def test_whole_bytes_are_exact(size_bytes: int) -> None:
    assert parse_bytes(size_bytes) == size_bytes
    assert parse_bytes(f"{size_bytes} B") == size_bytes


@given(st.integers(0, 10**9), st.sampled_from(["KiB", "MiB", "GiB"]))
def test_binary_prefixes_are_powers_of_1024(count: int, unit: str) -> None:
    assert parse_bytes(f"{count} {unit}") == count * 1024 ** (1 + ["KiB", "MiB", "GiB"].index(unit))


@given(st.integers(1, 10**15), st.sampled_from(["k", "M", "G"]))
def test_eight_bits_are_a_byte(count: int, prefix: str) -> None:
    assert parse_bytes(f"{8 * count} {prefix}bit") == parse_bytes(f"{count} {prefix}B")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (79_600_000, "75.9 MiB"),
        (80 * 2**30, "80.0 GiB"),
        (2**70, "1024.0 EiB"),
        (-5000, "-4.9 KiB"),
        (math.inf, "inf B"),
    ],
)
def test_sizes_as_shown(size_bytes: float, text: str) -> None:
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0 s"),
        (1e-10, "0.1 ns"),
        (20e-6, "20.0 us"),
        (999.9e-9, "1.00 us"),
        (0.0123, "12.3 ms"),
        (1.234, "1.23 s"),
        (59.99, "60.0 s"),
        (300, "5.00 min"),
        (7200, "2.00 h"),
        (259_200, "3.00 days"),
        (-0.5, "-500 ms"),
        (math.inf, "inf s"),
    ],
)
def test_durations_as_shown(duration_s: float, text: str) -> None:
    assert format_seconds(duration_s) == text


def test_rates_as_shown() -> None:
    assert format_bytes_per_s(25e9) == "25.0 GB/s"
    assert format_bytes_per_s(999.6) == "1.00 kB/s"
    assert format_bytes_per_s(1e11) == "100 GB/s"
    assert format_bytes_per_s(0) == "0 B/s"
    assert format_bytes_per_s(3e21) == "3000 EB/s"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (12345, "12,345"),
        (999_999, "999,999"),
        (10**6, "1.00 million"),
        (3_020_000_000, "3.02 billion"),
        (999_900_000, "1.00 billion"),
        (9e17, "900 quadrillion"),
        (1e20, "1e+20"),
        (math.inf, "inf"),
        (-5e6, "-5.00 million"),
    ],
)
def test_counts_as_shown(count: float, text: str) -> None:
    assert format_count(count) == text


@given(st.floats(1e-9, 1e9))
def test_durations_survive_being_shown_to_three_digits(duration_s: float) -> None:
    assert parse_seconds(format_seconds(duration_s)) == pytest.approx(duration_s, rel=0.006)


@given(st.integers(0, 2**69))
def test_sizes_survive_being_shown_to_one_decimal(size_bytes: int) -> None:
    assert parse_bytes(format_bytes(size_bytes)) == pytest.approx(size_bytes, rel=0.05)


@given(st.floats(1, 1e20))
def test_rates_survive_being_shown_to_three_digits(rate: float) -> None:
    assert parse_bytes_per_s(format_bytes_per_s(rate)) == pytest.approx(rate, rel=0.006)


@given(st.floats())
def test_anything_can_be_shown(value: float) -> None:
    for show in (format_bytes, format_seconds, format_bytes_per_s, format_count):
        assert len(show(value)) < 320
