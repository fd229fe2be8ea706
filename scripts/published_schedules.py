"""What papers say of each schedule: idle time and microbatches in flight, with F = I = W = 1 on every rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Size(NamedTuple):
    """Ranks, microbatches and stages a rank."""

    p: int
    m: int
    v: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published figure for F = I = W = 1 on each rank: its formula in words, and as a function of the size."""

    formula: str
    value: Callable[[Size], float]
    source: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One schedule of the document."""

    name: str
    words: str
    idle: Claim
    in_flight: Claim
    is_idle_of_span: bool = False
    """whether the published idle time is that within a rank's own span"""


ENTRIES = (
    Entry(
        name="gpipe",
        words="All forwards, then all backwards. Every microbatch of the minibatch is kept at once.",
        idle=Claim(formula="(p-1)(F+B)", value=lambda s: 3 * (s.p - 1), source="[1] section 2.3"),
        in_flight=Claim(formula="m", value=lambda s: s.m, source="[1] section 2.3"),
    ),
    Entry(
        name="1f1b",
        words="A backward as soon as there is one. As idle as GPipe, but rank r keeps p - r microbatches.",
        idle=Claim(formula="(p-1)(F+B)", value=lambda s: 3 * (s.p - 1), source="[3] section 2.2.1"),
        in_flight=Claim(formula="min(m, p)", value=lambda s: min(s.m, s.p), source="[2] section 3.2"),
    ),
    Entry(
        name="interleaved_1f1b",
        words="1F1B over v shorter stages a rank: v times less idle, v times the messages, more kept.",
        idle=Claim(formula="(p-1)(F+B)/v", value=lambda s: 3 * (s.p - 1) / s.v, source="[3] section 2.2.2"),
        in_flight=Claim(formula="p + (p-1)/v", value=lambda s: s.p + (s.p - 1) / s.v, source="[4] section 4.2.3"),
    ),
    Entry(
        name="zb_h1",
        words="The backward is split, and W fills what was idle. As many microbatches in flight as 1F1B's first rank.",
        idle=Claim(formula="(p-1)(F+I-W)", value=lambda s: s.p - 1, source="[5] table 1"),
        in_flight=Claim(formula="p", value=lambda s: s.p, source="[5] table 1"),
    ),
    Entry(
        name="zb_h2",
        words="Twice the warm-up of ZB-H1: no rank waits between its first computation and its last.",
        idle=Claim(formula="(p-1)(F+I-2W)", value=lambda s: (s.p - 1) * (1 + 1 - 2), source="[5] table 1"),
        in_flight=Claim(formula="2p - 1", value=lambda s: 2 * s.p - 1, source="[5] table 1"),
        is_idle_of_span=True,
    ),
    Entry(
        name="zbv",
        words="Two stages a rank, down the ranks and up again: no rank waits, with 1F1B's microbatches in flight.",
        idle=Claim(formula="0", value=lambda _: 0, source="[6] section 5"),
        in_flight=Claim(formula="p", value=lambda s: s.p, source="[6] section 5"),
        is_idle_of_span=True,
    ),
)

SOURCES = (
    "Huang et al. 2019, *GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism*",
    "Narayanan et al. 2019, *PipeDream: Generalized Pipeline Parallelism for DNN Training*; flushed at the step",
    "Narayanan et al. 2021, *Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM*",
    "Korthikanti et al. 2022, *Reducing Activation Recomputation in Large Transformer Models*",
    "Qi et al. 2023, *Zero Bubble Pipeline Parallelism*",
    "Qi et al. 2024, *Pipeline Parallelism with Controllable Memory*",
)
