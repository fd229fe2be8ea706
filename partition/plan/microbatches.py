"""How a minibatch is cut into microbatches: the one rule that planner and runtime share."""

from __future__ import annotations


def microbatch_sizes(minibatch_size: int, num_microbatches: int) -> tuple[int, ...]:
    """As equal as whole examples allow, larger ones first: (500, 3) gives (167, 167, 166)."""
    quotient, remainder = divmod(minibatch_size, num_microbatches)
    return (quotient + 1,) * remainder + (quotient,) * (num_microbatches - remainder)


def short_minibatch_sizes(sizes: tuple[int, ...], num_examples: int) -> tuple[int, ...]:
    """The last of the planned microbatches, the first of them cut: (167, 167, 166) of 230 examples gives (64, 166).

    A stage then goes through the end of its planned row, on microbatches that are no larger, and the output that it
    sends last, which stays until STEP, is the planned one: a short minibatch needs no more memory.
    """
    short: list[int] = []
    for size in reversed(sizes):
        left = num_examples - sum(short)
        if left > 0:
            short.append(min(size, left))
    return tuple(reversed(short))


def size_classes(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The distinct sizes in order of appearance, and the index among them of each microbatch."""
    distinct = tuple(dict.fromkeys(sizes))
    index = {size: position for position, size in enumerate(distinct)}
    return distinct, tuple(index[size] for size in sizes)
