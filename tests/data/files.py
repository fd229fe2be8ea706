"""Files as users have them, written by the tests; and experiments on them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(values: np.ndarray) -> bytes:
    code = CODES[values.dtype.str[1:]]
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, code, values.ndim]) + sizes + values.astype(values.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, values: np.ndarray) -> Path:
    """Gzipped if the name says so."""
    content = idx_bytes(values)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def draw_images(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 28, 28) and classes: two bright rows say which of ten it is."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 10, count).astype(np.uint8)
    images = random.integers(0, 100, (count, 28, 28)).astype(np.uint8)
    for image, one in zip(images, classes, strict=True):
        image[2 * one : 2 * one + 2] = 255
    return images, classes


def write_fashion(folder: Path, *, suffix: str = ".gz", num_train: int = 300, num_test: int = 50) -> Path:
    """The four files of Fashion-MNIST, or two where nothing is to be tested."""
    folder.mkdir(exist_ok=True)
    for part, count in (("train", num_train), ("t10k", num_test)):
        if count:
            images, classes = draw_images(count, seed=len(part))
            write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
            write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", classes)
    return folder


def draw_table(count: int = 40, width: int = 3, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Features of different sizes, and classes."""
    random = np.random.default_rng(count)
    features = random.normal(size=(count, width)) * 10.0 ** np.arange(width) + 5
    return features, random.integers(0, num_classes, count)


def save(path: Path, array: Any) -> str:
    np.save(path, array)
    return str(path)


def experiment_text(data: Mapping[str, Any], **model: Any) -> str:
    """An experiment in YAML (which JSON is) on two small simulated devices."""
    import json

    sections = {
        "model": {"in_features": 3, "hidden_features": [8], "out_features": 4, **model},
        "data": dict(data),
        "training": {"minibatch_size": 10, "epochs": 2},
        "optimizer": {"lr": 0.05},
        "cluster": {"devices": {"count": 2, "kind": "simulated", "memory": "64 MiB", "compute": "1 GFLOP/s"}},
    }
    return json.dumps(sections, indent=1)
