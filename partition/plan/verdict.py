"""The answer in words: what does not fit and why, what to do, and what the alternatives would cost."""

from __future__ import annotations

from collections.abc import Sequence

from partition.plan.candidate import Candidate, Prediction
from partition.units import format_bytes, format_seconds


def describe(candidate: Candidate) -> str:
    """What a candidate does, as a phrase."""
    batch = f"minibatch {candidate.minibatch_size}"
    pieces = f"{candidate.num_microbatches} microbatches of at most {candidate.microbatch_size}"
    match candidate.strategy:
        case "whole":
            return f"the whole {batch} on one device"
        case "shrink":
            return f"a smaller {batch} on one device (learning rate {candidate.learning_rate:g})"
        case "accumulate":
            return f"{batch} accumulated on one device over {pieces}"
        case _:
            return f"{batch} through {candidate.num_stages} stages on as many devices, {pieces}, {candidate.schedule}"


def verdict(candidates: Sequence[Candidate], chosen: Candidate | None) -> str:
    """A few sentences that a person can act on."""
    sentences = [*_whole(candidates)]
    if chosen is None:
        return " ".join([*sentences, *_nothing_fits(candidates)])
    sentences.append(_choice(chosen))
    sentences += [*_alternative(candidates, chosen), *_shrinking(candidates, chosen)]
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
    words = {"whole": "Do neither", "shrink": "Shrink", "accumulate": "Accumulate", "pipeline": "Split the graph"}
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
        return ["No exact way on one device fits."] if chosen.num_devices > 1 else []
    best = min(others, key=lambda candidate: _predicted(candidate).step_s)
    ratio = _predicted(best).step_s / _predicted(chosen).step_s
    where = "on one device" if best.num_devices == 1 else "over several devices"
    speed = f"{ratio:.2f} times as long" if ratio >= 1 else f"{1 / ratio:.2f} times faster"
    return [f"The best exact way {where} is {best.name}: {format_seconds(_predicted(best).step_s)} a step, {speed}."]


def _shrinking(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """What a smaller minibatch would take, kept apart because its gradient is another one."""
    shrunk = [candidate for candidate in candidates if candidate.strategy == "shrink" and candidate.feasible]
    if not chosen.exact_gradient:
        return ["Nothing that keeps the minibatch fits, and the price of a smaller one in steps has not been measured."]
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
        reasons = "; ".join(f"{candidate.name}: {candidate.reason}" for candidate in candidates[:3])
        return [f"Nothing can be laid out ({reasons})." if reasons else "No candidate is left to compare."]
    closest = min(with_layout, key=lambda candidate: candidate.overflow_bytes)
    return [
        f"Nothing fits. The closest is {closest.name} ({describe(closest)}): {closest.reason}. "
        "More memory per device, more devices, or a smaller network would change that."
    ]
