"""The .npz format: a zip file of .npy arrays by name. Arrays that are not compressed are read in place."""

from __future__ import annotations

import zipfile
import zlib

from partition.config import DataConfig
from partition.data.idx import MOST_PACKED, Pair
from partition.data.npy import LONGEST_START, check_size, read_header
from partition.data.outline import Outline, Packed, Raw, check_dtype, check_outline
from partition.data.refusal import DataError, file_bytes, show

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)
"""What the standard library raises for a damaged zip file, encryption included."""

_LOCAL_HEADER_BYTES = 30


def outline_npz(data: DataConfig) -> tuple[Pair, Pair | None]:
    """What the experiment's .npz files hold: for training and, where they are named, held out.

    Raises DataError, AbsentDataError.
    """
    assert data.path is not None, "the schema asks for it"
    train = _outline_pair(data.path, "data.path", {"features_key": data.features_key, "targets_key": data.targets_key})
    if not data.names_tests:
        return train, None
    path, key = (data.path, "data.path") if data.test_path is None else (data.test_path, "data.test_path")
    if data.test_features_key is None or data.test_targets_key is None:
        names = {"features_key": data.features_key, "targets_key": data.targets_key}
    else:
        names = {"test_features_key": data.test_features_key, "test_targets_key": data.test_targets_key}
    return train, _outline_pair(path, key, names)


def _outline_pair(path: str, key: str, names: dict[str, str]) -> Pair:
    file_bytes(path, key)
    try:
        with zipfile.ZipFile(path) as archive:
            return Pair(*(_outline_member(archive, path, f"data.{of}", name) for of, name in names.items()))
    except DataError:
        raise
    except ZIP_ERRORS as error:
        raise DataError(
            key, f"{show(path)} is no readable .npz file ({show(error)}); save it with numpy.savez"
        ) from None


def _outline_member(archive: zipfile.ZipFile, path: str, key: str, name: str) -> Outline:
    info = _find(archive, path, key, name)
    shown = f"{show(name)} in {show(path)}"
    with archive.open(info) as stream:
        start = stream.read(LONGEST_START)
    header = read_header(start, lambda message: DataError(key, f"{shown} {message}"))
    is_raw = info.compress_type == zipfile.ZIP_STORED
    offset = _offset(path, info) + header.offset
    outline = check_outline(
        Outline(
            key=key,
            name=shown,
            shape=header.shape,
            dtype=check_dtype(header.dtype, key, shown),
            is_columns_first=header.is_columns_first,
            place=Raw(path=path, offset=offset)
            if is_raw
            else Packed(path=path, member=info.filename, offset=header.offset),
        )
    )
    check_size(outline, info.file_size - header.offset)
    if not is_raw and info.file_size > MOST_PACKED * info.compress_size:
        raise outline.refuse(f"claims {info.file_size} bytes in {info.compress_size} compressed; save it again")
    if is_raw and offset + outline.num_bytes > file_bytes(path, key):
        raise outline.refuse(f"lies beyond the end of the file at {file_bytes(path, key)} bytes; save it again")
    return outline


def _find(archive: zipfile.ZipFile, path: str, key: str, name: str) -> zipfile.ZipInfo:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if name not in members:
        there = ", ".join(show(one) for one in sorted(members)[:8]) or "none"
        raise DataError(key, f"{show(path)} has no array {show(name)}; there are: {there}; set {key} to one of them")
    info = members[name]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(key, f"{show(name)} in {show(path)} is compressed in an unusual way; save it with numpy.savez")
    return info


def _offset(path: str, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin: after its local header, whose two names have their own lengths."""
    with open(path, "rb") as stream:
        stream.seek(info.header_offset)
        header = stream.read(_LOCAL_HEADER_BYTES)
    sizes = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return info.header_offset + _LOCAL_HEADER_BYTES + sum(sizes)
