"""What dominates the memory of a candidate, and what would help, in a few sentences."""

from __future__ import annotations

from partition.plan.footprint import DeviceMemory, Footprint
from partition.report.table import counted
from partition.schedule import Kind
from partition.units import format_bytes

_KINDS = {
    Kind.F: "forward",
    Kind.B: "backward",
    Kind.I: "input gradient",
    Kind.W: "weight gradient",
    Kind.R: "recomputation",
    Kind.RECV_F: "receiving activations",
    Kind.RECV_B: "receiving gradients",
    Kind.STEP: "optimizer step",
}


def action_words(of: DeviceMemory) -> str:
    """When a device holds most: `2W1, weight gradient`."""
    return "from the start" if of.peak_action is None else f"{of.peak_action}, {_KINDS[of.peak_action.kind]}"


def memory_words(found: Footprint) -> str:
    """Which device is fullest, what dominates there, what would help, what prediction needs."""
    return " ".join([_fullest(found), _dominant(found), *_help(found), *_prediction(found)])


def _fullest(found: Footprint) -> str:
    of, candidate = found.fullest, found.candidate
    over = of.training.peak_bytes - of.limit_bytes
    estimated = " (estimated)" if candidate.sharding else ""
    share = f"{of.training.peak_bytes / of.limit_bytes:.0%} of its {format_bytes(of.limit_bytes)}"
    if over > 0:
        return (
            f"It does not fit: {of.device} would hold {format_bytes(of.training.peak_bytes)}{estimated}, {share}, "
            f"{format_bytes(over)} too much."
        )
    return f"The fullest device, {of.device}, holds at most {format_bytes(of.training.peak_bytes)}{estimated}, {share}."


def _state_bytes(of: DeviceMemory) -> int:
    """What does not depend on the minibatch."""
    training = of.training
    return training.parameters_bytes + training.gradients_bytes + training.optimizer_bytes


def _is_state_dominant(of: DeviceMemory) -> bool:
    return 2 * _state_bytes(of) >= of.training.peak_bytes


def _dominant(found: Footprint) -> str:
    """The largest part first."""
    of = found.fullest
    if _is_state_dominant(of):
        flying = f"activations {_in_flight(of)} are {_share(of, of.training.activations_bytes)}"
        return f"{_held(found).capitalize()} are {_share(of, _state_bytes(of))} of that, {flying}."
    shares = [
        (of.training.activations_bytes, f"activations {_in_flight(of)}"),
        (_state_bytes(of), _held(found)),
        (of.training.boundary_bytes, "buffers of messages"),
        (of.training.data_bytes, "examples"),
        (of.training.workspace_bytes, "workspace"),
    ]
    shares.sort(key=lambda pair: -pair[0])
    named = [f"{what} are {_share(of, size)}" for size, what in shares if 20 * size >= of.training.peak_bytes]
    return f"{named[0][0].upper()}{named[0][1:]} of that{''.join(f', {one}' for one in named[1:])}."


def _held(found: Footprint) -> str:
    has_state = any(of.training.optimizer_bytes for of in found.devices)
    return "parameters, gradients and optimizer state" if has_state else "parameters and gradients"


def _in_flight(of: DeviceMemory) -> str:
    if not of.in_flight:
        return "of the device's share"
    if of.in_flight == 1:
        return "of the one microbatch in flight"
    return f"kept for {counted(of.in_flight, 'microbatch', 'microbatches')} in flight"


def _share(of: DeviceMemory, num_bytes: int) -> str:
    return f"{num_bytes / of.training.peak_bytes:.0%}"


def _help(found: Footprint) -> list[str]:
    """What makes room; the same split first, as that is known to the byte."""
    of = found.fullest
    if _state_bytes(of) > of.limit_bytes:
        alone = f"{_held(found).capitalize()} alone, {format_bytes(_state_bytes(of))}, are more than {of.device} has"
        return [f"{alone}, so no minibatch is small enough: {_less_state(found)}."]
    if _is_state_dominant(of):
        state = f"{_held(found).capitalize()} do not shrink with the minibatch"
        return [*_remedies(found), f"{state}; for more room, {_less_state(found)}."]
    return _remedies(found) or [f"For more room take a smaller minibatch, or {_less_state(found)}."]


def _less_state(found: Footprint) -> str:
    """What makes a device's part of the model smaller."""
    of = found.fullest
    ways = ["split the layers over more devices", "take a smaller network"]
    if 3 * of.training.optimizer_bytes >= _state_bytes(of):
        ways.append("an optimizer that keeps less")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def _remedies(found: Footprint) -> list[str]:
    """Those that save a fiftieth or more, with what they come to."""
    candidate, of = found.candidate, found.fullest
    words = []
    for remedy in found.remedies:
        if 50 * (of.training.peak_bytes - remedy.peak_bytes) < of.training.peak_bytes:
            continue
        microbatches = counted(remedy.num_microbatches, "microbatch", "microbatches")
        change = microbatches if remedy.schedule == candidate.schedule else f"schedule {remedy.schedule}"
        if remedy.is_recomputing and not candidate.recompute:
            change = "recomputation"
        fits = ", which fits" if remedy.fits and not candidate.feasible else ""
        words.append(f"{change} would bring it to {format_bytes(remedy.peak_bytes)}{fits}")
    return [f"On the same split, {' and '.join(words)}."] if words else []


def _prediction(found: Footprint) -> list[str]:
    peaks = [of.prediction for of in found.devices if of.prediction]
    if not peaks:
        return []
    alone = max(one.peak_bytes for one in peaks)
    return [f"Prediction alone takes at most {format_bytes(alone)} on a device."]
