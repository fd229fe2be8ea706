"""Where ranks hold several stages: layers moved over cuts, one at a time, while that relieves the busiest rank."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cmp_to_key
from itertools import pairwise

from partition.plan.split import Segment, StageSeconds

Fits = Callable[[Sequence[Segment]], bool]
MOST_STAGES_IMPROVED = 64
"""Of more stages, several a device, the split is taken as it is found."""


def with_improved(
    start: tuple[Segment, ...], placement: Sequence[int], seconds: StageSeconds, fits: Fits, edges: Sequence[int]
) -> list[tuple[Segment, ...]]:
    """A split and, where it is another, the one that it is improved to; stages begin at `edges` alone."""
    return list(dict.fromkeys((start, _improve(start, placement, seconds, fits, edges))))


def _improve(
    segments: tuple[Segment, ...], placement: Sequence[int], seconds: StageSeconds, fits: Fits, edges: Sequence[int]
) -> tuple[Segment, ...]:
    """Move layers over cuts, one at a time, while that relieves the busiest rank, or the next one, and still fits."""
    if len(segments) > MOST_STAGES_IMPROVED:
        return segments
    moves = _Moves(segments, placement, seconds, edges)
    while (better := moves.first_better(fits)) is not None:
        moves.take(better)
    return tuple(moves.segments)


class _Moves:
    """The moves of one layer, or of layers kept together, over a cut, by what they do to the two ranks beside it.

    Of two splits the better one has the less busy busiest rank, of equals the less busy next one, and so on; where two
    ranks change, that is decided by these two, as all others are the same. A move that is taken changes what the moves
    beside its two ranks do, and no other.
    """

    def __init__(
        self, segments: tuple[Segment, ...], placement: Sequence[int], seconds: StageSeconds, edges: Sequence[int]
    ) -> None:
        self.segments, self.placement, self.seconds, self.edges = list(segments), placement, seconds, edges
        self.stages_of = [[index for index, of in enumerate(placement) if of == rank]
                          for rank in range(max(placement) + 1)]  # fmt: skip
        self.stage_s = [seconds(index, *segment[:3]) for index, segment in enumerate(segments)]
        self.busy_s = [self._busy_s(rank) for rank in range(len(self.stages_of))]
        self.found = [self._at_cut(index) for index in range(len(segments) - 1)]

    def _busy_s(self, rank: int) -> float:
        busy_s = 0.0
        for index in self.stages_of[rank]:
            busy_s += self.stage_s[index]
        return busy_s

    def first_better(self, fits: Fits) -> _Move | None:
        """The best of the better moves whose split fits."""
        best = min(self._most_promising(), key=cmp_to_key(_compare), default=None)
        if best is None or fits(self._moved(best)):
            return best
        moves = sorted((move for of_cut in self.found for move in of_cut), key=cmp_to_key(_compare))
        return next((move for move in moves if fits(self._moved(move))), None)

    def _most_promising(self) -> list[_Move]:
        """The better moves, or those of them that relieve the busiest rank, where there is one: the others do not."""
        busiest_s = max(self.busy_s)
        if self.busy_s.count(busiest_s) == 1:
            cuts = sorted(self._cuts_of(self.busy_s.index(busiest_s)))
            moves = [move for cut in cuts for move in self.found[cut]]
            if any(after[0] < busiest_s for _, after, _, _ in moves):
                return moves
        return [move for of_cut in self.found for move in of_cut]

    def _cuts_of(self, rank: int) -> set[int]:
        """The cuts beside the stages of a rank."""
        return {at for of in self.stages_of[rank] for at in (of - 1, of) if 0 <= at < len(self.segments) - 1}

    def _moved(self, move: _Move) -> tuple[Segment, ...]:
        """The split that a move leads to."""
        index = move[2]
        return (*self.segments[:index], *self._pair(move), *self.segments[index + 2 :])

    def _pair(self, move: _Move) -> tuple[Segment, Segment]:
        """The two stages beside a cut that has moved."""
        _, _, index, cut = move
        return _cut_pair(self.segments[index], self.segments[index + 1], cut)

    def take(self, move: _Move) -> None:
        """Make a move."""
        index, moved = move[2], self._pair(move)
        self.segments[index : index + 2] = moved
        self.stage_s[index : index + 2] = [self.seconds(at, *of[:3]) for at, of in enumerate(moved, start=index)]
        ranks = {self.placement[index], self.placement[index + 1]}
        for rank in ranks:
            self.busy_s[rank] = self._busy_s(rank)
        for cut in set().union(*map(self._cuts_of, ranks)):
            self.found[cut] = self._at_cut(cut)

    def _at_cut(self, index: int) -> list[_Move]:
        """The moves over one cut that make the split better."""
        found: list[_Move] = []
        here, there = self.segments[index], self.segments[index + 1]
        for cut in _moved_cuts(here, there, self.edges):
            changes_s = (
                self.seconds(index, here.device, here.first_layer, cut) - self.stage_s[index],
                self.seconds(index + 1, there.device, cut + 1, there.last_layer) - self.stage_s[index + 1],
            )
            before, after = self._change(index, *changes_s)
            if after < before:
                found.append((before, after, index, cut))
        return found

    def _change(self, index: int, here_s: float, there_s: float) -> tuple[list[float], list[float]]:
        """What the ranks of two neighbouring stages are busy before a move and after it, the busier one first."""
        rank, other = self.placement[index], self.placement[index + 1]
        busy_s, other_s = self.busy_s[rank], self.busy_s[other]
        if rank == other:
            return [busy_s], [busy_s + here_s + there_s]
        before = [busy_s, other_s] if busy_s >= other_s else [other_s, busy_s]
        busy_s, other_s = busy_s + here_s, other_s + there_s
        return before, [busy_s, other_s] if busy_s >= other_s else [other_s, busy_s]


_Move = tuple[list[float], list[float], int, int]
"""The busy seconds of the two ranks before and after it, the stage before the cut, and where the cut is then."""


def _compare(one: _Move, other: _Move) -> int:
    """Which of two moves leads to the better split: what the one changes counts as it was in the other."""
    ours, theirs = sorted((*one[1], *other[0]), reverse=True), sorted((*other[1], *one[0]), reverse=True)
    return (ours > theirs) - (ours < theirs) or one[2] - other[2]


def _moved_pairs(segments: Sequence[Segment], edges: Sequence[int]) -> Iterator[tuple[int, tuple[Segment, Segment]]]:
    """The two stages at a cut that has moved to the next place, after the index of the first."""
    for index, (before, after) in enumerate(pairwise(segments)):
        yield from ((index, _cut_pair(before, after, cut)) for cut in _moved_cuts(before, after, edges))


def _moved_cuts(before: Segment, after: Segment, edges: Sequence[int]) -> Iterator[int]:
    """The last layers of the first of two stages with the cut at the place before and at the one behind."""
    at = bisect_left(edges, after.first_layer)
    for edge in (edges[at - 1], edges[at + 1]):
        if before.first_layer < edge <= after.last_layer:
            yield edge - 1


def _cut_pair(before: Segment, after: Segment, cut: int) -> tuple[Segment, Segment]:
    """Two neighbouring stages with the cut between them after another layer."""
    return before.covering(before.first_layer, cut), after.covering(cut + 1, after.last_layer)


def neighbours(segments: Sequence[Segment], edges: Sequence[int]) -> Iterator[tuple[Segment, ...]]:
    """The splits with one cut moved to the next of the places where stages may begin."""
    for index, moved in _moved_pairs(segments, edges):
        yield (*segments[:index], *moved, *segments[index + 2 :])
