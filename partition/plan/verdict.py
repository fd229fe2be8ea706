"""The answer in words: what does not fit and why, what to do, and what the alternatives would cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from partition.plan.candidate import Candidate, Prediction
from partition.plan.choice import choose, is_out_of_reach
from partition.plan.more_memory import enough_memory
from partition.plan.noise_break_even import noise_break_evens
from partition.plan.progress import TIE_OF_NOISE
from partition.plan.rejection import RunnerUp, runners_up
from partition.units import format_bytes, format_samples_per_s, format_seconds


def describe(candidate: Candidate) -> str:
    """What a candidate does, as a phrase."""
    batch = f"minibatch of {candidate.minibatch_size}"
    num_pieces = candidate.num_replicas * candidate.num_microbatches
    is_even = num_pieces * candidate.microbatch_size == candidate.minibatch_size
    plural = "" if candidate.num_microbatches == 1 else "es"
    most = "" if is_even else "at most "
    pieces = f"{candidate.num_microbatches} microbatch{plural} of {most}{candidate.microbatch_size}"
    again = recomputation(candidate)
    match candidate.strategy:
        case "recompute":
            return f"the {batch} in {pieces} on one device{again}"
        case "whole":
            return f"the whole {batch} on one device"
        case "shrink":
            return f"a smaller {batch} on one device, learning rate {candidate.learning_rate:.4g}"
        case "accumulate":
            return f"the {batch} in {pieces} on one device"
        case "sharded":
            return f"the {batch} and every parameter shared by {candidate.num_replicas} devices, torch's fully_shard"
        case "data_parallel":
            return f"the {batch} shared by {candidate.num_replicas} devices, {pieces} on each{again}"
        case _:
            return f"the {batch} in {pieces} {_through(candidate)}{again}"


def recomputation(candidate: Candidate) -> str:
    """Which layers are computed again, after a comma; nothing where none are."""
    if not candidate.recompute:
        return ""
    runs = [f"{first}" if first == last else f"{first}-{last}" for first, last in candidate.recompute]
    shown = [*runs[:4], f"{len(runs) - 4} more runs"] if len(runs) > 5 else runs
    is_one = len(runs) == 1 and "-" not in runs[0]
    together = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f", computing layer{'' if is_one else 's'} {together} again for the backward"


def _through(candidate: Candidate) -> str:
    """The stages that the microbatches go through."""
    per_device = candidate.num_stages // candidate.ranks_per_replica
    stages = f"{candidate.num_stages} stages, {'one' if per_device == 1 else per_device} a device"
    replicas = "" if candidate.num_replicas == 1 else f"each of {candidate.num_replicas} replicas of "
    return f"through {replicas}{stages}, {candidate.schedule}"


def verdict(
    candidates: Sequence[Candidate],
    chosen: Candidate | None,
    *,
    objective: str = "time_to_target",
    is_sgd: bool = True,
) -> str:
    """A few sentences that a person can act on."""
    sentences = [*_whole(candidates)]
    if chosen is None:
        return " ".join([*sentences, *_nothing_fits(candidates)])
    sentences.append(_choice(chosen))
    sentences += [*_runners_up(candidates, chosen, objective), *_alternative(candidates, chosen)]
    sentences += [*_sharded(candidates, chosen), *_shrinking(candidates, chosen, is_sgd)]
    return " ".join(sentences)


def _runners_up(candidates: Sequence[Candidate], chosen: Candidate, objective: str) -> list[str]:
    """What comes next, of the same strategy and of another, and how far behind."""
    found = list(runners_up(candidates, chosen, objective))
    if not found:
        return []
    words = [f"{one.candidate.name}, {_behind(one, objective)}" for one in found]
    of_another = f"; the best of another strategy is {words[1]}" if len(words) > 1 else ""
    return [f"Runner-up: {words[0]}{of_another}."]


def _behind(runner_up: RunnerUp, objective: str) -> str:
    what = "device-seconds" if objective == "device_seconds" else "time"
    more = runner_up.times - 1
    if runner_up.is_tie:
        return f"a near tie ({more:+.1%} {what})" if abs(more) >= 0.0005 else "a tie"
    return f"{more:.0%} more {what}" if more > 0 else f"{-more:.0%} less {what} but another gradient"


def _predicted(candidate: Candidate) -> Prediction:
    assert candidate.predicted is not None, "a candidate with a layout is priced"
    return candidate.predicted


def _whole(candidates: Sequence[Candidate]) -> list[str]:
    """Why the whole minibatch does not fit on one device, where none can hold it."""
    whole = [candidate for candidate in candidates if candidate.strategy == "whole"]
    if not whole or any(candidate.feasible for candidate in whole):
        return []
    closest = min(whole, key=lambda candidate: candidate.overflow_bytes)
    if closest.predicted is None:  # constraints of the planner leave it no layout
        return [f"One device will not do for the whole minibatch: it {closest.reason}."]
    return [f"The whole minibatch of {closest.minibatch_size} does not fit on one device: it {closest.reason}."]


def _choice(chosen: Candidate) -> str:
    predicted = _predicted(chosen)
    gradient = "the exact gradient" if chosen.exact_gradient else "NOT the gradient of the whole minibatch"
    words = {
        "whole": "Neither split nor shrink",
        "shrink": "Shrink the minibatch",
        "accumulate": "Accumulate",
        "recompute": "Recompute",
        "pipeline": "Split the graph",
        "data_parallel": "Share the minibatch",
        "sharded": "Share the minibatch and every parameter",
        "hybrid": "Split the graph and share the minibatch",
    }
    return (
        f"{words[chosen.strategy]}: {chosen.name} ({describe(chosen)}), {format_seconds(predicted.step_s)} a step "
        f"and {format_samples_per_s(predicted.samples_per_s)} samples/s predicted, {gradient}, "
        f"at most {format_bytes(max(predicted.peak_bytes))} on a device."
    )


def _alternative(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """The best exact way on one device beside several, or on several beside one."""
    if not chosen.exact_gradient:  # a shorter step of another gradient says nothing
        return []
    others = [
        candidate
        for candidate in candidates
        if candidate.feasible
        and candidate.exact_gradient
        and not is_out_of_reach(candidate)
        and (candidate.num_devices == 1) != (chosen.num_devices == 1)
    ]
    if not others:
        was_compared = any(candidate.num_devices == 1 and candidate.exact_gradient for candidate in candidates)
        return ["No exact way on one device fits."] if chosen.num_devices > 1 and was_compared else []
    best = choose(others, "step_time")
    assert best is not None, "they fit and are exact"
    ratio = _predicted(best).step_s / _predicted(chosen).step_s
    where = "on one device" if best.num_devices == 1 else "over several devices"
    speed = f"{ratio:.2f} times as long" if ratio >= 1 else f"{1 / ratio:.2f} times as fast"
    return [f"The best exact way {where} is {best.name}: {format_seconds(_predicted(best).step_s)} a step, {speed}."]


def _sharded(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """Why a sharded model is not chosen though it is estimated to be faster."""
    faster = [
        one for one in candidates if one.feasible and one.sharding and one is not chosen
        and _predicted(one).step_s < _predicted(chosen).step_s
    ]  # fmt: skip
    if not faster or not chosen.exact_gradient:
        return []
    best = min(faster, key=lambda candidate: _predicted(candidate).step_s)
    return [
        f"{best.name}, torch's fully_shard, is estimated at {format_seconds(_predicted(best).step_s)} a step; it is "
        "chosen only by --strategy where devices are simulated, as nothing there holds it to its bytes."
    ]


def _shrinking(candidates: Sequence[Candidate], chosen: Candidate, is_sgd: bool) -> list[str]:
    """What a smaller minibatch would take: by the measured noise, or the noise below which it would win."""
    shrunk = [candidate for candidate in candidates if candidate.strategy == "shrink" and candidate.feasible]
    if not chosen.exact_gradient:
        return _shrunk(candidates, chosen)
    if not shrunk:
        return []
    if _predicted(shrunk[0]).relative_progress_s is not None:
        return [_by_noise(shrunk, chosen)]
    best = max(shrunk, key=lambda candidate: _predicted(candidate).samples_per_s)
    speed = f"{format_samples_per_s(_predicted(best).samples_per_s)} samples/s on one device"
    if not is_sgd:
        return [
            f"Shrinking ({best.name}) gives {speed}, but a noisier gradient; how many more steps that takes is known "
            "for sgd only, so it is not ranked against exact ways."
        ]
    return [
        f"Shrinking ({best.name}) gives {speed}, but a noisier gradient; without a measured gradient noise it is not "
        f"ranked against exact ways{_below_which(candidates)}."
    ]


def _shrunk(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """Why the gradient is not exact."""
    others = [candidate for candidate in candidates if candidate.exact_gradient]
    able = [candidate for candidate in others if candidate.feasible and not is_out_of_reach(candidate)]
    progress_s = _predicted(chosen).relative_progress_s
    if able and progress_s is not None:
        rival = min(able, key=lambda one: _predicted(one).relative_progress_s or 0.0)
        times = (_predicted(rival).relative_progress_s or 0.0) / progress_s
        return [f"By the measured noise the best exact way, {rival.name}, takes {times:.2f} times as long to a target."]
    nothing = "Nothing that keeps the minibatch fits" if others else "Nothing that keeps the minibatch was compared"
    if progress_s is not None:
        return [f"{nothing}."]
    return [f"{nothing}; how many more steps a smaller one needs has not been measured."]


def _by_noise(shrunk: Sequence[Candidate], chosen: Candidate) -> str:
    """A smaller minibatch against the choice, on the axis of progress."""
    best = min(shrunk, key=lambda one: _predicted(one).relative_progress_s or 0.0)
    times = (_predicted(best).relative_progress_s or 0.0) / (_predicted(chosen).relative_progress_s or 1.0)
    if abs(math.log(times)) < math.log(1 + TIE_OF_NOISE):
        return (
            f"By the measured noise {best.name} takes {times:.2f} times as long to a target: a tie, as noise is not "
            "known to a tenth, and the exact gradient is taken."
        )
    return f"By the measured noise {best.name} takes {times:.2f} times as long to a target."


def _below_which(candidates: Sequence[Candidate]) -> str:
    """The noise below which shrinking would be chosen, after a colon."""
    words = []
    for one in noise_break_evens(candidates):
        if one.wins_below is None:
            words.append(f"{one.candidate} beats {one.rival} whatever the noise")
        elif one.wins_below > 0:
            words.append(f"{one.candidate} beats {one.rival} below B_noise = {one.wins_below:,.0f}")
    return f": {' and '.join(words)}" if words else ", and whatever the noise it takes longer to a target"


def _nothing_fits(candidates: Sequence[Candidate]) -> list[str]:
    with_layout = [candidate for candidate in candidates if candidate.predicted]
    if not with_layout:
        reasons = " Or: ".join(dict.fromkeys(f"{candidate.reason}." for candidate in candidates))
        return [f"Nothing can be laid out: {reasons}" if reasons else "The planner section leaves nothing to compare."]
    able = [candidate for candidate in with_layout if not is_out_of_reach(candidate)]
    # What has room and is refused for another reason is not helped by larger devices.
    too_large = [candidate for candidate in able if candidate.overflow_bytes > 0]
    closest = min(too_large or able or with_layout, key=lambda candidate: candidate.overflow_bytes)
    if not able and closest.overflow_bytes > 0:
        return [
            f"Nothing can be chosen. The closest is {closest.name} ({describe(closest)}): {closest.reason}; simulated "
            "devices cannot hold it to its bytes."
        ]
    words = f"Nothing fits. The closest is {closest.name} ({describe(closest)}): {closest.reason}."
    return [f"{words} Devices of {enough_memory(closest).in_words} would do for it." if too_large else words]
