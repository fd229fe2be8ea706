"""Quantities with units: "80 GiB", "25 GB/s", "100 GFLOP/s" and "20 us" to base units (bytes, seconds, flop) and back.

Decimal prefixes are powers of 1000, binary ones (Ki, Mi, ...) powers of 1024. A capital B is a byte, a small b a bit,
so "gb", which many write for gigabytes, is refused rather than read as an eighth of what was meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeGuard

from partition.errors import PartitionError

Quantity = str | int | float

_PREFIXES = ("", "k", "m", "g", "t", "p", "e")
_BINARY_NAMES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DECIMAL_NAMES = ("", "k", "M", "G", "T", "P", "E")
_COUNT_NAMES = ("million", "billion", "trillion", "quadrillion")
_SECONDS = {"ns": "1e-9", "us": "1e-6", "µs": "1e-6", "μs": "1e-6", "ms": "1e-3", "s": "1", "sec": "1", "second": "1"}
_SECONDS |= {"seconds": "1", "min": "60", "minute": "60", "minutes": "60", "h": "3600", "hour": "3600", "hours": "3600"}
_SECONDS |= {"day": "86400", "days": "86400"}

# Above every machine and below what a float, or 28 decimal digits, would round to a surprise.
_LARGEST = 10**24
_LONGEST_TEXT = 64

# The exponent is short by design: expanding 1e999999999 into an integer would take all memory.
_NUMBER_AND_UNIT = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4}(?![0-9]))?)\s*(.*)", re.DOTALL)
_DATA_UNIT = re.compile(r"([kmgtpe]?)(i?)(bytes?|bits?|b)", re.IGNORECASE)
_RATE_UNIT = re.compile(r"(.*?)\s*(?:/\s*s(?:ec|econd)?|ps)")
_FLOP_UNIT = re.compile(r"([kmgtpe]?)(?:flops?\s*/\s*s(?:ec|econd)?|flops)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Dimension:
    """What a quantity is called, how one is written, and how its unit becomes a factor (None: no such unit)."""

    noun: str
    examples: str
    factor: Callable[[str], Decimal | None]


def parse_bytes(quantity: Quantity) -> int:
    """Bytes of "80 GiB", "24 GB", "512 Mbit" or a plain number of bytes; a fraction of a byte is dropped.

    Raises PartitionError (one line) for anything else, and for negative and non-finite values.

    >>> parse_bytes("76 MiB")
    79691776
    """
    return int(_base_units(quantity, _SIZE))


def parse_bytes_per_s(quantity: Quantity) -> float:
    """Bytes per second of "25 GB/s", "200 Mbit/s", "200 Mbps" or a plain number; errors as for `parse_bytes`.

    >>> parse_bytes_per_s("200 Mbit/s")
    25000000.0
    """
    return float(_base_units(quantity, _DATA_RATE))


def parse_flop_per_s(quantity: Quantity) -> float:
    """Floating-point operations per second of "989 TFLOP/s", "100 GFLOPS" or a plain number.

    >>> parse_flop_per_s("100 GFLOP/s")
    100000000000.0
    """
    return float(_base_units(quantity, _FLOP_RATE))


def parse_seconds(quantity: Quantity) -> float:
    """Seconds of "20 us", "1.5 ms", "60 s", "5 min", "2 h" or a plain number of seconds.

    >>> parse_seconds("20 us")
    2e-05
    """
    return float(_base_units(quantity, _DURATION))


def format_bytes(value_bytes: float) -> str:
    """Bytes for a reader, in binary units with one decimal: "75.9 MiB"; below 1 KiB the number itself.

    >>> format_bytes(79_600_000)
    '75.9 MiB'
    """
    if abs(value_bytes) < 1024 or not math.isfinite(value_bytes):
        return f"{value_bytes:g} B"
    power = 1
    # A size that would print as 1024.0 belongs to the next unit.
    while abs(value_bytes) / 1024**power >= 1023.95 and power < len(_BINARY_NAMES) - 1:
        power += 1
    return f"{value_bytes / 1024**power:.1f} {_BINARY_NAMES[power]}"


def format_bytes_enough(value_bytes: float) -> str:
    """Bytes rounded up, by 1% at most: who takes what is said has so many, and not many more.

    >>> format_bytes_enough(79_730_000), format_bytes_enough(1_200_000_000)
    ('76.1 MiB', '1144.5 MiB')
    """
    power = 0
    while value_bytes / 1024 ** (power + 1) >= 10 and power < len(_BINARY_NAMES) - 1:
        power += 1
    if power == 0:
        return f"{math.ceil(value_bytes)} B"
    return f"{math.ceil(value_bytes / 1024**power * 10) / 10:.1f} {_BINARY_NAMES[power]}"


def format_seconds(value_s: float) -> str:
    """Seconds for a reader, three digits: "20.0 us", "12.3 ms", "1.23 s", "5.00 min".

    >>> format_seconds(0.0123)
    '12.3 ms'
    """
    size_s = abs(value_s)
    if size_s == 0 or not math.isfinite(value_s):
        return f"{value_s:g} s"
    for limit_s, unit_s, name in (
        (0.9995e-6, 1e-9, "ns"),
        (0.9995e-3, 1e-6, "us"),
        (0.9995, 1e-3, "ms"),
        (119.5, 1.0, "s"),
        (7_195.0, 60.0, "min"),
        (172_700.0, 3_600.0, "h"),
    ):
        if size_s < limit_s:
            return f"{_three_digits(value_s / unit_s)} {name}"
    return f"{_three_digits(value_s / 86_400)} days"


def format_bytes_per_s(rate_bytes_per_s: float) -> str:
    """Bytes per second for a reader, decimal units, three digits: "25.0 GB/s"."""
    return _with_decimal_prefix(rate_bytes_per_s, "B/s")


def format_samples_per_s(rate_per_s: float) -> str:
    """Samples per second for a reader: whole from a hundred on, three digits below.

    >>> format_samples_per_s(12_345.6), format_samples_per_s(0.4196)
    ('12,346', '0.42')
    """
    return f"{rate_per_s:,.0f}" if rate_per_s >= 99.95 else _three_digits(rate_per_s)


def format_count(count: float) -> str:
    """A count for a reader: digits in groups below a million, words above: "12,345", "3.02 billion".

    >>> format_count(3_020_000_000)
    '3.02 billion'
    """
    if not 999_999.5 <= abs(count) < 1e18:
        return f"{count:,.0f}" if abs(count) < 1e18 else f"{count:.3g}"
    scaled = count / 1e6
    for name in _COUNT_NAMES:
        if abs(scaled) < 999.5 or name == _COUNT_NAMES[-1]:
            break
        scaled /= 1000
    return f"{_three_digits(scaled)} {name}"


def _base_units(quantity: Quantity, dimension: _Dimension) -> Decimal:
    """The quantity in base units, exact; raises PartitionError with the value and examples of what is accepted."""
    value = _read_text(quantity, dimension) if isinstance(quantity, str) else _read_number(quantity, dimension)
    if value < 0:
        raise _refusal(quantity, "is negative; write it", dimension)
    if value > _LARGEST:
        raise _refusal(quantity, f"is more than {_LARGEST:.0e} in base units; write it", dimension)
    return value


def _read_text(text: str, dimension: _Dimension) -> Decimal:
    found = _NUMBER_AND_UNIT.fullmatch(text.strip()) if len(text) <= _LONGEST_TEXT else None
    if found is None:
        raise _refusal(text, f"is not {dimension.noun}; write it", dimension)
    number, unit = found.groups()
    factor = Decimal(1) if unit == "" else dimension.factor(unit)
    if factor is None:
        raise _refusal(text, f"is not {dimension.noun} ({_explain_unit(unit)}); write it", dimension)
    return Decimal(number) * factor


def _explain_unit(unit: str) -> str:
    is_doubtful = re.match(r"[mgtpe]i?b|kib", unit) is not None
    return f"does {unit!r} mean bits or bytes?" if is_doubtful else f"{unit!r} is no unit of it"


def _read_number(number: object, dimension: _Dimension) -> Decimal:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not isinstance(number, int | float) or not is_number or not _is_finite(number):
        raise _refusal(number, f"is not {dimension.noun}; write it", dimension)
    return Decimal(number)


def _is_finite(number: float) -> bool:
    # Not math.isfinite for integers: it converts to float and overflows at 10**400.
    return isinstance(number, int) or math.isfinite(number)


def _refusal(value: object, wrong: str, dimension: _Dimension) -> PartitionError:
    shown = f"an integer of {value.bit_length()} bits" if _is_long(value) else repr(value)
    shown = shown if len(shown) <= _LONGEST_TEXT else f"{shown[: _LONGEST_TEXT - 3]}..."
    return PartitionError(f"{shown} {wrong} like {dimension.examples}")


def _is_long(value: object) -> TypeGuard[int]:
    # Python refuses to print integers of more than 4300 digits.
    return isinstance(value, int) and value.bit_length() > 200


def _data_factor(unit: str) -> Decimal | None:
    found = _DATA_UNIT.fullmatch(unit)
    if found is None or (found[2] and not found[1]):
        return None
    prefix, binary, name = found.groups()
    # "gb" and "mib": the small prefix says that case was not minded, so the small b says nothing. "kb" is proper.
    if name == "b" and prefix.islower() and (prefix != "k" or binary):
        return None
    factor = Decimal((1024 if binary else 1000) ** _PREFIXES.index(prefix.lower()))
    return factor / 8 if name == "b" or name.lower().startswith("bit") else factor


def _data_rate_factor(unit: str) -> Decimal | None:
    found = _RATE_UNIT.fullmatch(unit)
    return _data_factor(found[1]) if found else None


def _flop_rate_factor(unit: str) -> Decimal | None:
    found = _FLOP_UNIT.fullmatch(unit)
    return Decimal(1000 ** _PREFIXES.index(found[1].lower())) if found else None


def _seconds_factor(unit: str) -> Decimal | None:
    # Case counts only between ms and Ms: a millisecond is not a megasecond.
    name = unit if unit in _SECONDS or unit.lower() == "ms" else unit.lower()
    return Decimal(_SECONDS[name]) if name in _SECONDS else None


def _three_digits(value: float) -> str:
    size = abs(value)
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{value:.{decimals}f}" if size >= 0.995 else f"{value:.3g}"


def _with_decimal_prefix(value: float, unit: str) -> str:
    power = 0
    while abs(value) >= 999.5 * 1000**power and power < len(_DECIMAL_NAMES) - 1:
        power += 1
    return f"{_three_digits(value / 1000**power)} {_DECIMAL_NAMES[power]}{unit}"


_SIZE = _Dimension(noun="a size", examples='"80 GiB", "24 GB" or 12345 (bytes)', factor=_data_factor)
_DATA_RATE = _Dimension(
    noun="a data rate", examples='"25 GB/s", "200 Mbit/s" or 1.5e9 (bytes per second)', factor=_data_rate_factor
)
_FLOP_RATE = _Dimension(
    noun="a compute rate", examples='"100 GFLOP/s", "989 TFLOP/s" or 1e11 (FLOP per second)', factor=_flop_rate_factor
)
_DURATION = _Dimension(noun="a duration", examples='"20 us", "60 s", "5 min" or 0.5 (seconds)', factor=_seconds_factor)
