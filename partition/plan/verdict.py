"""The answer in words: what does not fit and why, what to do, and what the alternatives would cost."""

from __future__ import annotations

from collections.abc import Sequence

from partition.plan.candidate import Candidate, Prediction
from partition.units import format_bytes, format_seconds


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


def verdict(candidates: Sequence[Candidate], chosen: Candidate | None) -> str:
    """A few sentences that a person can act on."""
    sentences = [*_whole(candidates)]
    if chosen is None:
        return " ".join([*sentences, *_nothing_fits(candidates)])
    sentences.append(_choice(chosen))
    sentences += [*_alternative(candidates, chosen), *_sharded(candidates, chosen), *_shrinking(candidates, chosen)]
    return " ".join(sentences)


def _predicted(candidate: Candidate) -> Prediction:
    assert candidate.predicted is not None, "a candidate with a layout is priced"
    return candidate.predicted


def _whole(candidates: Sequence[Candidate]) -> list[str]:
    """Why the whole minibatch does not fit on one device, where none can hold it."""
    whole = [candidate for candidate in candidates if candidate.strategy == "whole"]
    if not whole or any(candidate.feasible for candidate in whole):
        return []
    closest = min(whole, key=lambda candidate: candidate.overflow_bytes)
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
        f"and {predicted.samples_per_s:,.0f} samples/s predicted, {gradient}, "
        f"at most {format_bytes(max(predicted.peak_bytes))} on a device."
    )


def _alternative(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """The best exact way with another number of devices: fewer first of all."""
    others = [
        candidate
        for candidate in candidates
        if candidate.feasible and candidate.exact_gradient and (candidate.num_devices == 1) != (chosen.num_devices == 1)
    ]
    if not others:
        was_compared = any(candidate.num_devices == 1 and candidate.exact_gradient for candidate in candidates)
        return ["No exact way on one device fits."] if chosen.num_devices > 1 and was_compared else []
    best = min(others, key=lambda candidate: _predicted(candidate).step_s)
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


def _shrinking(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """What a smaller minibatch would take, kept apart because its gradient is another one."""
    shrunk = [candidate for candidate in candidates if candidate.strategy == "shrink" and candidate.feasible]
    if not chosen.exact_gradient:
        others = [candidate for candidate in candidates if candidate.exact_gradient]
        nothing = "Nothing that keeps the minibatch fits" if others else "Nothing that keeps the minibatch was compared"
        return [f"{nothing}; how many more steps a smaller one needs has not been measured."]
    if not shrunk:
        return []
    best = max(shrunk, key=lambda candidate: _predicted(candidate).samples_per_s)
    return [
        f"Shrinking ({best.name}) gives {_predicted(best).samples_per_s:,.0f} samples/s on one device, but a noisier "
        "gradient; without a measured gradient noise it is not ranked against exact ways."
    ]


def _nothing_fits(candidates: Sequence[Candidate]) -> list[str]:
    with_layout = [candidate for candidate in candidates if candidate.predicted]
    if not with_layout:
        reasons = " Or: ".join(dict.fromkeys(f"{candidate.reason}." for candidate in candidates))
        return [f"Nothing can be laid out: {reasons}" if reasons else "The planner section leaves nothing to compare."]
    closest = min(with_layout, key=lambda candidate: candidate.overflow_bytes)
    enough = format_bytes(max(_predicted(closest).peak_bytes))
    return [
        f"Nothing fits. The closest is {closest.name} ({describe(closest)}): {closest.reason}. "
        f"Devices of {enough} would do for it; so may more devices, or a smaller network."
    ]
