"""Another process's memory: read where the kernel lets us, with one copy and no help of that process. Linux only."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_SET_PTRACER = 0x59616D61
"""Of prctl: who may read this process where the kernel restricts that to ancestors (Yama)."""


class _Vector(ctypes.Structure):
    """One run of bytes: struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _find_read() -> Any:
    """The C library's process_vm_readv; None where there is none."""
    read = getattr(ctypes.CDLL(None, use_errno=True), "process_vm_readv", None)
    if read is not None:
        vector, count = ctypes.POINTER(_Vector), ctypes.c_ulong
        read.argtypes = (ctypes.c_int, vector, count, vector, count, count)
        read.restype = ctypes.c_ssize_t
    return read


_READ = _find_read()


def read_memory(pid: int, address: int, into: int, num_bytes: int) -> None:
    """Copy bytes from an address of another process to one of this process.

    Raises OSError where the kernel does not let us, or there is no such memory.
    """
    done = 0
    while done < num_bytes:
        here, there = (_Vector(start + done, num_bytes - done) for start in (into, address))
        count = _READ(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        if count <= 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        done += count


def is_supported() -> bool:
    """Whether this system can read another process's memory at all."""
    return _READ is not None


def allow_reading(pid: int) -> None:
    """Let a process and its descendants read this one's memory, where the kernel would restrict it to ancestors."""
    ctypes.CDLL(None).prctl(_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)
