"""Data sets: counts and shapes without reading them; the arrays, by NumPy, in `partition.data.dataset`."""

from partition.data.description import DataInfo, check, describe

__all__ = ["DataInfo", "check", "describe"]
