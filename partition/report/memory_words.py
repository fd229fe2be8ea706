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
    of = found.fullest
    state = f"{_held(found)} {'are' if ' and ' in _held(found) else 'are'} {_share(of, _state_bytes(of))}"
    flying = f"activations {_in_flight(of)} {_share(of, of.training.activations_bytes)}"
    if _is_state_dominant(of):
        return f"{state[0].upper()}{state[1:]} of that, {flying}."
    flying = f"activations {_in_flight(of)} are {_share(of, of.training.activations_bytes)}"
    others = [(of.training.boundary_bytes, "buffers of messages"), (of.training.data_bytes, "examples")]
    named = "".join(f", {what} {_share(of, size)}" for size, what in others if size * 20 >= of.training.peak_bytes)
    return f"{flying[0].upper()}{flying[1:]} of that, {_held(found)} {_share(of, _state_bytes(of))}{named}."


def _held(found: Footprint) -> str:
    has_state = any(of.training.optimizer_bytes for of in found.devices)
    return "parameters, gradients and optimizer state" if has_state else "parameters and gradients"


def _in_flight(of: DeviceMemory) -> str:
    if not of.in_flight:
        return "and what they pass on"
    if of.in_flight == 1:
        return "of the one microbatch in flight"
    return f"kept for {counted(of.in_flight, 'microbatch', 'microbatches')} in flight"


def _share(of: DeviceMemory, num_bytes: int) -> str:
    return f"{num_bytes / of.training.peak_bytes:.0%}"


def _help(found: Footprint) -> list[str]:
    of = found.fullest
    if _state_bytes(of) > of.limit_bytes:
        return [
            f"{_held(found).capitalize()} alone, {format_bytes(_state_bytes(of))}, are more than {of.device} has: no "
            f"minibatch is small enough; {_less_state(found)} would help."
        ]
    if _is_state_dominant(of):
        return [f"They do not shrink with the minibatch; {_less_state(found)} would help.", *_remedies(found)]
    if not _remedies(found):
        return [f"A smaller minibatch, or {_less_state(found)}, would help."]
    return _remedies(found)


def _less_state(found: Footprint) -> str:
    """What makes a device's part of the model smaller."""
    of = found.fullest
    ways = ["layers split over more devices", "a smaller network"]
    if 3 * of.training.optimizer_bytes >= _state_bytes(of):
        ways.append("an optimizer that keeps less")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def _remedies(found: Footprint) -> list[str]:
    candidate, words = found.candidate, []
    for remedy in found.remedies:
        if remedy.schedule != candidate.schedule:
            words.append(f"schedule {remedy.schedule} to {format_bytes(remedy.peak_bytes)}")
        else:
            words.append(
                f"{counted(remedy.num_microbatches, 'microbatch', 'microbatches')} in place of "
                f"{candidate.num_microbatches} to {format_bytes(remedy.peak_bytes)}"
            )
    words = [one for one, remedy in zip(words, found.remedies, strict=True) if _matters(found, remedy.peak_bytes)]
    return [f"On the same split, {' and '.join(words)} would bring it down."] if words else []


def _matters(found: Footprint, peak_bytes: int) -> bool:
    """Whether it saves a fiftieth."""
    return 50 * (found.fullest.training.peak_bytes - peak_bytes) >= found.fullest.training.peak_bytes


def _prediction(found: Footprint) -> list[str]:
    peaks = [of.prediction for of in found.devices if of.prediction]
    if not peaks:
        return []
    alone = max(one.peak_bytes for one in peaks)
    return [f"Prediction alone takes at most {format_bytes(alone)} on a device."]
