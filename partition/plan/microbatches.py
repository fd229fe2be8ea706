"""How a minibatch is cut into microbatches: the one rule that planner and runtime share."""

from __future__ import annotations


def microbatch_sizes(minibatch_size: int, num_microbatches: int) -> tuple[int, ...]:
    """As equal as whole examples allow, larger ones first: (500, 3) gives (167, 167, 166)."""
    quotient, remainder = divmod(minibatch_size, num_microbatches)
    return (quotient + 1,) * remainder + (quotient,) * (num_microbatches - remainder)


def short_minibatch_sizes(minibatch_size: int, microbatch_size: int) -> tuple[int, ...]:
    """The microbatches of a short minibatch, none above `microbatch_size`: (230, 100) gives (77, 77, 76)."""
    return microbatch_sizes(minibatch_size, -(-minibatch_size // microbatch_size))


def size_classes(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The distinct sizes in order of appearance, and the index among them of each microbatch."""
    distinct = tuple(dict.fromkeys(sizes))
    index = {size: position for position, size in enumerate(distinct)}
    return distinct, tuple(index[size] for size in sizes)
