"""Lowering and replay on integer arrays: the floats of `partition.schedule.replay`, for all ranks at once."""

from partition.schedule.fast.coded import Coded, decode, encode, generate_coded
from partition.schedule.fast.estimate import Figures, estimate

__all__ = ["Coded", "Figures", "decode", "encode", "estimate", "generate_coded"]
