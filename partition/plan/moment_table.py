"""The moments of a stage's row as arrays: the bytes of any stage at all of them are one product.

bytes = static + counts @ held + peak of the action that begins      [moment], [moment, class x counter]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partition.plan.occupancy import Moment
from partition.schedule import Kind

if TYPE_CHECKING:
    from partition.plan.occupancy import StageOccupancy

_KINDS = tuple(Kind)
_PLACE = {kind: place for place, kind in enumerate(_KINDS)}


class MomentTable(NamedTuple):
    """Moments of one stage, each once."""

    counts: NDArray[np.int64]
    """[moment, class x counter]: how many microbatches of each size are in each of the counters."""
    action: NDArray[np.intp]
    """[moment]: which action begins, by class and kind; beyond the last where it is another stage's."""
    place: NDArray[np.intp]
    """[instant]: which of the moments it is."""

    @classmethod
    def of(cls, moments: Iterable[Moment]) -> MomentTable:
        """The table of the moments of all instants, in order."""
        distinct: dict[Moment, int] = {}
        place = [distinct.setdefault(moment, len(distinct)) for moment in moments]
        counts = [[count for of_class in zip(*moment[2:], strict=True) for count in of_class] for moment in distinct]
        action = [-1 if of.kind is None else of.size_class * len(_KINDS) + _PLACE[of.kind] for of in distinct]
        return cls(np.array(counts, dtype=np.int64), np.array(action, dtype=np.intp), np.array(place, dtype=np.intp))

    def bytes_of(self, stage: StageOccupancy) -> NDArray[np.int64]:
        """[moment]: bytes alive at the peak of the action that begins."""
        held = np.array([of for of_class in stage.held for of in of_class], dtype=np.int64)
        peaks = [of.get(kind, 0) for of in stage.peaks for kind in _KINDS]
        of_actions = np.array([*peaks, 0], dtype=np.int64)  # -1: the last
        found: NDArray[np.int64] = self.counts @ held + of_actions[self.action] + stage.static_bytes
        return found

    def peak_of(self, stage: StageOccupancy) -> int:
        """The most bytes that a stage holds at any of them."""
        return int(self.bytes_of(stage).max())
