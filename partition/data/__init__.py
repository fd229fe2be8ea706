"""Data sets: counts and shapes without reading them; the arrays, by NumPy, in `partition.data.dataset`."""

from partition.data.description import DataInfo, check, describe
from partition.data.refusal import AbsentDataError, DataError

__all__ = ["AbsentDataError", "DataError", "DataInfo", "check", "describe"]
