"""Devices, channels, stages, the executor and the training loop; everything that runs on torch."""

from partition.runtime.joining import joined, needs
from partition.runtime.machine import check_devices
from partition.runtime.module import HandWrittenModule, build_module, from_torch
from partition.runtime.training import Result, num_steps, train
from partition.runtime.workers import Fleet

__all__ = [
    "Fleet",
    "HandWrittenModule",
    "Result",
    "build_module",
    "check_devices",
    "from_torch",
    "joined",
    "needs",
    "num_steps",
    "train",
]
