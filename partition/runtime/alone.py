"""How much sooner a rank is done where the others have nothing to do.

Ranks of one host share its memory, its caches and often its clock, so what is measured with all of them busy is too
slow for a candidate of one device. The first rank trains the stand-in again while the others wait:

    all   |##########|  wait  |##########|  wait  |   rank 0
    alone |  .....   |########|  .....   |########|
"""

from __future__ import annotations

import statistics

from partition.config import ExperimentConfig
from partition.costs.profile import Alone
from partition.runtime.profiling import Runner, fitting_candidates, median_and_spread, stand_in_search
from partition.runtime.world import World, share_largest

ROUNDS = 4
BUDGET_S = 4.0
"""Of all rounds of all sizes."""
LEAST_STEPS, MOST_STEPS = 2, 12
"""Of a round."""


def measure_alone(config: ExperimentConfig, world: World, share_bytes: int) -> Alone:
    """The ratio of the seconds of steps alone to those of steps together; all ranks of a world call it together.

    Over steps of the largest microbatches that fit and of middling ones, which are bound by arithmetic and by Python.
    """
    search = stand_in_search(config, share_bytes)
    every = fitting_candidates(search)
    ratios: list[float] = []
    for candidate in (every[-1], every[len(every) // 2]):
        runner = Runner(search, candidate)
        runner.step()
        slowest_s = float(share_largest(world, [runner.step_s()])[0])
        count = round(min(MOST_STEPS, max(LEAST_STEPS, BUDGET_S / (4 * ROUNDS * slowest_s))))
        ratios += [_round(runner, world, count) for _ in range(ROUNDS)]
    ratio, spread = median_and_spread(ratios)
    return Alone(factor=min(1.0, ratio), spread=spread)


def _round(runner: Runner, world: World, count: int) -> float:
    """Seconds of steps of this rank with the others waiting, over those of the same steps of all at once."""
    seconds = []
    for is_alone in (False, True):
        share_largest(world, [0.0])  # all begin at once, and none while another has not ended
        is_idle = is_alone and 0 not in world.ranks
        seconds.append([] if is_idle else [runner.step_s() for _ in range(count)])
    share_largest(world, [0.0])
    together, alone = seconds
    return statistics.median(alone or together) / statistics.median(together)
