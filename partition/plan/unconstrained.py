"""What constraints cost: the choice under them beside the choice without."""

from __future__ import annotations

from partition.plan.candidate import Candidate
from partition.plan.choice import TIE, choose, value
from partition.plan.progress import usable_noise, with_progress
from partition.plan.pruned import PrunedSearch
from partition.plan.search import Search
from partition.units import format_seconds


def under_constraints(search: Search, chosen: Candidate | None) -> str:
    """A sentence on what the constraints hold the choice to; of a large search, what they are alone."""
    words = f"All of this is with {search.constraints.in_words(search.device_names)}"
    if search.is_large:
        return f"{words}: every way that was compared honours that."
    # Where devices are unlike, the orders tried without may leave out the one that pins ask for: what honours the
    # constraints can be chosen without them, too.
    free = _choice_without(search) or chosen
    if free is None or free.predicted is None:
        return f"{words}; without that nothing could be chosen either."
    takes = f"{free.name}, {format_seconds(free.predicted.step_s)} a step"
    if chosen is None:
        return f"{words}, which is why nothing can be chosen: without that it would be {takes}."
    objective = search.settings.planner.objective
    has_fewer = objective == "fewest_devices" and chosen.num_devices != free.num_devices
    if has_fewer or not (chosen.exact_gradient and free.exact_gradient):
        is_same = chosen.name == free.name and chosen.predicted == free.predicted
        return f"{words}, which costs nothing." if is_same else f"{words}: without that the choice would be {takes}."
    times = value(chosen, objective) / value(free, objective)
    if times <= 1 + TIE:
        return f"{words}, which costs nothing: no way without that is better."
    return f"{words}, which costs a factor of {times:.3g}: without that the choice would be {takes}."


def _choice_without(search: Search) -> Candidate | None:
    """What would be chosen without the constraints; ways that cannot be are not priced."""
    planner = search.settings.planner.model_copy(update={"keep_together": None, "pinned": None})
    settings = search.settings.model_copy(update={"planner": planner})
    free = Search(settings, (search.cluster, search.costs))
    found, _ = PrunedSearch(search=free, has_kinds=False).run()
    candidates = with_progress(found, usable_noise(settings, search.noise))
    return choose(candidates, settings.planner.objective)
