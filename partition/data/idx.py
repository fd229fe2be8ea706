"""IDX, the format of MNIST and Fashion-MNIST: a magic number, the sizes of the axes, the values; often gzipped.

00 00 TT NN | NN sizes of 4 bytes | values        TT the type, NN the number of axes, all big-endian
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from partition.config import DataConfig
from partition.data.outline import Outline, Packed, Raw, check_outline
from partition.data.refusal import AbsentDataError, DataError, file_bytes, read_start, show

_TYPES = {0x08: "|u1", 0x09: "|i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

GZIP_MAGIC = b"\x1f\x8b"
MOST_PACKED = 1032
"""Bytes that one byte of a deflate stream can stand for; a header that claims more lies."""

_STEMS = {
    "train images": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "train labels": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    "test images": ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    "test labels": ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}


class Pair(NamedTuple):
    """Features and the targets that belong to them."""

    features: Outline
    targets: Outline


def outline_idx(data: DataConfig) -> tuple[Pair, Pair | None]:
    """What the experiment's IDX files hold: for training and, where such files are there, held out.

    Raises DataError, AbsentDataError.
    """
    assert data.path is not None, "the schema asks for it"
    if Path(data.path).is_dir():
        return _outline_folder(data)
    file_bytes(data.path, "data.path")
    if data.targets_path is None:
        raise DataError("data.path", f"{show(data.path)} is a file; name its folder, or add data.targets_path")
    train = Pair(outline_file(data.path, "data.path"), outline_file(data.targets_path, "data.targets_path"))
    return train, _outline_tests(data)


def _outline_tests(data: DataConfig) -> Pair | None:
    if data.test_path is None or data.test_targets_path is None:
        return None
    return Pair(
        outline_file(data.test_path, "data.test_path"), outline_file(data.test_targets_path, "data.test_targets_path")
    )


def _outline_folder(data: DataConfig) -> tuple[Pair, Pair | None]:
    assert data.path is not None, "it is the folder"
    for key in ("targets_path", "test_path", "test_targets_path"):
        if getattr(data, key) is not None:
            message = f"is for single files, and data.path is the folder {show(data.path)}; name files in all, or none"
            raise DataError(f"data.{key}", message)
    train = Pair(*(_outline_part(data.path, part) for part in ("train images", "train labels")))
    has_tests = any(_find(data.path, part) for part in ("test images", "test labels"))
    if not has_tests or data.test_fraction is not None:
        return train, None
    return train, Pair(*(_outline_part(data.path, part) for part in ("test images", "test labels")))


def _outline_part(folder: str, part: str) -> Outline:
    path = _find(folder, part)
    if path is None:
        message = f"the folder {show(folder)} has no {_STEMS[part][0]} (or .gz); put it there, or name the files: "
        raise AbsentDataError("data.path", message + "path, targets_path, test_path, test_targets_path")
    return outline_file(path, "data.path")


def _find(folder: str, part: str) -> str | None:
    """The file of a part under any of its usual names, the one that can be read in place first."""
    names = (f"{stem}{suffix}" for suffix in ("", ".gz") for stem in _STEMS[part])
    return next((str(Path(folder) / name) for name in names if (Path(folder) / name).is_file()), None)


def outline_file(path: str, key: str) -> Outline:
    """Shape and type by the header of one IDX file, gzipped or not, held against the size of the file.

    Raises DataError: not an IDX file, or a file whose header cannot be true.
    """
    size = file_bytes(path, key)
    is_packed = read_start(path, key, 2) == GZIP_MAGIC
    header = _read_header(path, key, is_packed=is_packed)
    name = show(path)
    if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in _TYPES or not header[3]:
        shown = header[:4].hex(" ") or "nothing"
        raise DataError(key, f"{name} is no IDX file: it begins with {shown}, not with 00 00 08 03 or the like")
    offset = 4 + 4 * header[3]
    if len(header) < offset:
        raise DataError(key, f"{name} ends within its header of {offset} bytes; get the file again")
    shape = struct.unpack(f">{header[3]}I", header[4:offset])
    place = Packed(path=path, member=None, offset=offset) if is_packed else Raw(path=path, offset=offset)
    outline = check_outline(Outline(key=key, name=name, shape=shape, dtype=_TYPES[header[2]], place=place))
    _check_size(outline, size, offset, is_packed=is_packed)
    return outline


def _read_header(path: str, key: str, *, is_packed: bool) -> bytes:
    if not is_packed:
        return read_start(path, key, 4 + 4 * 255)
    try:
        with gzip.open(path) as stream:
            return b"".join(_read_parts(stream, 4 + 4 * 255))
    except (OSError, zlib.error) as error:
        raise DataError(key, f"{show(path)} is a damaged gzip file ({error}); get the file again") from None


def _read_parts(stream: gzip.GzipFile, count: int) -> Iterator[bytes]:
    """At most so many bytes; where the file is cut off, those before."""
    try:
        while count and (part := stream.read1(count)):
            yield part
            count -= len(part)
    except EOFError:
        return


def _check_size(outline: Outline, size: int, offset: int, *, is_packed: bool) -> None:
    claimed = f"says it holds {' x '.join(map(str, outline.shape))} values of {outline.itemsize} bytes"
    if is_packed:
        if math.ceil((offset + outline.num_bytes) / MOST_PACKED) > size:
            raise outline.refuse(f"{claimed}, more than {size} bytes of gzip can; get the file again")
    elif size != offset + outline.num_bytes:
        has = "more" if size > offset + outline.num_bytes else "less"
        raise outline.refuse(f"{claimed}, and has {size - offset} bytes of them, {has} than that; get the file again")
