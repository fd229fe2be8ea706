"""How much sooner a rank is done where the others have nothing to do.

Ranks of one host share its memory, its caches and often its clock, so what is measured with all of them busy is too
slow for a candidate of one device. The first rank trains the stand-in again while the others wait:

    all   |##########|  wait  |##########|  wait  |   rank 0
    alone |  .....   |########|  .....   |########|
"""

from __future__ import annotations

import statistics
from itertools import chain

from partition.config import ExperimentConfig
from partition.costs.profile import Alone
from partition.runtime.profiling import BUDGET_S
from partition.runtime.stand_in import fitting_candidates, stand_in_search
from partition.runtime.timing import Runner, median_and_spread
from partition.runtime.world import World, share_largest

ROUNDS = 4
PART_OF_BUDGET = 1 / 8
"""Of what the layers may take, for all rounds of all sizes."""
LEAST_STEPS, MOST_STEPS = 2, 12
"""Of a round."""


def measure_alone(config: ExperimentConfig, world: World, share_bytes: int, budget_s: float = BUDGET_S) -> Alone:
    """The ratio of the seconds of steps alone to those of steps together; all ranks of a world call it together.

    Over steps of the largest microbatches that fit and of middling ones, which are bound by arithmetic and by Python.
    """
    search = stand_in_search(config, share_bytes)
    every = fitting_candidates(search)
    factors, ratios = list[float](), list[float]()
    for candidate in (every[-1], every[len(every) // 2]):
        runner = Runner(search, candidate)
        runner.step()
        slowest_s = float(share_largest(world, [runner.step_s()])[0])
        count = round(min(MOST_STEPS, max(LEAST_STEPS, PART_OF_BUDGET * budget_s / (4 * ROUNDS * slowest_s))))
        rounds = [_round(runner, world, count) for _ in range(ROUNDS)]
        # Of all rounds at once: a round that something disturbs is a part of them, not a ratio of its own.
        together, alone = (statistics.median(chain.from_iterable(of)) for of in zip(*rounds, strict=True))
        factors.append(alone / together)
        ratios += [statistics.median(of_alone) / statistics.median(of_all) for of_all, of_alone in rounds]
    return Alone(factor=min(1.0, statistics.mean(factors)), spread=median_and_spread(ratios)[1])


def _round(runner: Runner, world: World, count: int) -> tuple[list[float], list[float]]:
    """Seconds of steps of all ranks at once, and of the first one's with the others waiting; they give theirs twice."""
    seconds = []
    for is_alone in (False, True):
        share_largest(world, [0.0])  # all begin at once, and none while another has not ended
        is_idle = is_alone and 0 not in world.ranks
        seconds.append([] if is_idle else [runner.step_s() for _ in range(count)])
    share_largest(world, [0.0])
    together, alone = seconds
    return together, alone or together
