"""The .npy format: a magic string, a version, a header that is a Python literal, the values. Never a pickle."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import NamedTuple

from partition.config import DataConfig
from partition.data.idx import Pair
from partition.data.outline import Outline, Raw, check_dtype, check_outline
from partition.data.refusal import DataError, file_bytes, read_start, show

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
_LONGEST_HEADER = 10_000
LONGEST_START = len(_MAGIC) + 2 + 4 + _LONGEST_HEADER
"""Bytes of a file in which the whole header is, if it is one."""


class Header(NamedTuple):
    """What the start of an array's file says of it."""

    shape: tuple[int, ...]
    dtype: str
    is_columns_first: bool
    offset: int


def outline_npy(data: DataConfig) -> tuple[Pair, Pair | None]:
    """What the experiment's .npy files hold: for training and, where such files are named, held out.

    Raises DataError, AbsentDataError.
    """
    assert data.path is not None, "the schema asks for it"
    assert data.targets_path is not None, "the schema asks for it"
    train = Pair(outline_file(data.path, "data.path"), outline_file(data.targets_path, "data.targets_path"))
    if data.test_path is None or data.test_targets_path is None:
        return train, None
    features = outline_file(data.test_path, "data.test_path")
    return train, Pair(features, outline_file(data.test_targets_path, "data.test_targets_path"))


def outline_file(path: str, key: str) -> Outline:
    """Shape and type by the header of one .npy file, held against the size of the file.

    Raises DataError: not such a file, Python objects in it, or a header that cannot be true.
    """
    size, name = file_bytes(path, key), show(path)
    header = read_header(read_start(path, key, LONGEST_START), lambda message: DataError(key, f"{name} {message}"))
    outline = check_outline(
        Outline(
            key=key,
            name=name,
            shape=header.shape,
            dtype=check_dtype(header.dtype, key, name),
            is_columns_first=header.is_columns_first,
            place=Raw(path=path, offset=header.offset),
        )
    )
    check_size(outline, size - header.offset)
    return outline


def check_size(outline: Outline, num_bytes: int) -> None:
    """Refuse an array whose header and bytes disagree."""
    if num_bytes != outline.num_bytes:
        has = "more" if num_bytes > outline.num_bytes else "less"
        raise outline.refuse(
            f"says it holds the shape {outline.shape} of {outline.dtype}, {outline.num_bytes} bytes, and has "
            f"{num_bytes}, {has} than that; save it again"
        )


def read_header(start: bytes, refuse: Callable[[str], DataError]) -> Header:
    """The header in the first bytes of a file; `refuse` makes the error from what is wrong."""
    if start[:6] != _MAGIC:
        raise refuse(f"is no .npy array: it begins with {start[:6].hex(' ') or 'nothing'}; save it with numpy.save")
    version = start[6] if len(start) > 7 else 0
    if version not in _LENGTH_BYTES:
        raise refuse(f"is of version {version} of the .npy format; save it with numpy.save")
    begin = 8 + _LENGTH_BYTES[version]
    length = int.from_bytes(start[8:begin], "little")
    if length > _LONGEST_HEADER or begin + length > len(start):
        raise refuse(f"has a header of {length} bytes, and {len(start) - begin} are there; save it with numpy.save")
    shape, dtype, is_columns_first = _parse(start[begin : begin + length], refuse)
    return Header(shape, dtype, is_columns_first, begin + length)


def _parse(text: bytes, refuse: Callable[[str], DataError]) -> tuple[tuple[int, ...], str, bool]:
    try:
        fields = ast.literal_eval(text.decode("utf-8").strip())
        shape, dtype, order = fields["shape"], fields["descr"], fields["fortran_order"]
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError):
        raise refuse("has a header that cannot be read; save it with numpy.save") from None
    is_shape = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if not is_shape or not isinstance(order, bool):
        raise refuse("has a header without a shape; save it with numpy.save")
    return shape, dtype, order and len(shape) > 1
