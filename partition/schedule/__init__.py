"""Schedules: generated, checked, lowered to messages, replayed in time and memory, read and written as text."""

from partition.schedule.actions import Action, Kind, Schedule
from partition.schedule.generators import GENERATORS, generate
from partition.schedule.grid import draw
from partition.schedule.lowering import lower
from partition.schedule.memory import MemoryPeak, find_memory_peak, memory_over_row, memory_peak
from partition.schedule.recompute import with_recomputation
from partition.schedule.replay import Replay, replay, replay_replicas
from partition.schedule.replay_costs import ReplayCosts, uniform_costs
from partition.schedule.text import from_text, to_text
from partition.schedule.validation import validate

__all__ = [
    "GENERATORS",
    "Action",
    "Kind",
    "MemoryPeak",
    "Replay",
    "ReplayCosts",
    "Schedule",
    "draw",
    "find_memory_peak",
    "from_text",
    "generate",
    "lower",
    "memory_over_row",
    "memory_peak",
    "replay",
    "replay_replicas",
    "to_text",
    "uniform_costs",
    "validate",
    "with_recomputation",
]
