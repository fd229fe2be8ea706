"""What a candidate holds: layer by layer, device by device, in training and in prediction, and what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from partition.costs import StageCost
from partition.graph import Category, StageProgram
from partition.graph.block_operators import Normalise
from partition.graph.program import Activate, Affine, Give, LossAndGrad, Take, Variable, operators
from partition.plan.candidate import Candidate, RankLoad, StageMemory, StagePlan, rank_loads
from partition.plan.curve import MOST_MICROBATCHES
from partition.plan.layout import Layout
from partition.plan.prediction import PredictionMemory, prediction_memory
from partition.plan.search import Search
from partition.plan.shape import Shape, segments_of
from partition.plan.simulation import with_bytes
from partition.schedule import Action, Kind, ReplayCosts
from partition.schedule.memory import find_memory_peak


@dataclass(frozen=True, kw_only=True)
class LayerMemory:
    """What one affine layer with its activation takes, or one block."""

    layer: int
    in_features: int
    out_features: int
    stage_index: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    kept_bytes: int
    """Of the largest microbatch, between its forward and its backward."""
    sent_bytes: int
    """What a microbatch carries to the next device after this layer, and back again; 0 where there is no cut."""


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """What the stages of one device hold together."""

    device: str
    rank: int
    stages: tuple[StagePlan, ...]
    training: StageMemory
    """At the instant of most."""
    limit_bytes: int
    peak_action: Action | None
    """The first action that holds the peak; None where it is held from the start, or not known."""
    in_flight: int
    """Microbatches whose backward is not done then, that of the action included; 0 where it is not known."""
    prediction: PredictionMemory | None
    """None where the layout is not the project's own."""


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """The fullest device under a change, on the same split."""

    num_microbatches: int
    schedule: str
    is_recomputing: bool
    """Layers are computed again for the backward."""
    peak_bytes: int
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The memory of a candidate."""

    candidate: Candidate
    layers: tuple[LayerMemory, ...]
    devices: tuple[DeviceMemory, ...]
    remedies: tuple[Remedy, ...]
    """Twice as many microbatches, another schedule, recomputation: those that relieve the fullest device."""

    @property
    def fullest(self) -> DeviceMemory:
        """The device with the least room, in shares of what it has."""
        return max(self.devices, key=lambda device: device.training.peak_bytes / device.limit_bytes)


def footprint(search: Search, candidate: Candidate) -> Footprint:
    """The memory of a candidate that has stages, fitting or not."""
    devices = _devices(search, candidate)
    found = Footprint(candidate=candidate, layers=_layers(search, candidate), devices=devices, remedies=())
    return replace(found, remedies=_remedies(search, found))


# Layers


def _layers(search: Search, candidate: Candidate) -> tuple[LayerMemory, ...]:
    return tuple(
        of_layer
        for plan in candidate.stages
        if plan.replica_index == 0
        for of_layer in _layers_of(search, plan, candidate.microbatch_size)
    )


def _layers_of(search: Search, plan: StagePlan, rows: int) -> list[LayerMemory]:
    cost = search.model.stage(*plan.layers)
    program, item = cost.program, search.model.itemsize
    kept = kept_by_layer(program, rows, item)
    found = []
    # Stages of equal layers share their costs, so that the program may name those of another stage.
    for index, layer in enumerate(program.layers, start=plan.first_layer):
        static = search.model.stage(index, index).static_bytes(0)
        found.append(
            LayerMemory(
                layer=index,
                in_features=layer.in_features,
                out_features=layer.out_features,
                stage_index=plan.stage_index,
                parameters_bytes=static[Category.PARAMETERS],
                gradients_bytes=static[Category.GRADIENTS],
                optimizer_bytes=static[Category.OPTIMIZER],
                kept_bytes=kept[layer.index],
                sent_bytes=cost.microbatch(rows).output_bytes if index == plan.last_layer else 0,
            )
        )
    return found


def kept_by_layer(program: StageProgram, rows: int, itemsize: int) -> Mapping[int, int]:
    """Bytes that a microbatch of `rows` examples leaves between F and B, by the layer that reads or makes them."""
    owners = _owners(program)
    kept: Counter[int] = Counter() if program.is_first else Counter(
        {program.layers[0].index: program.input.num_bytes(rows, itemsize)}
    )  # fmt: skip
    for instruction in program.forward:
        if isinstance(instruction, Take | Give):
            sign = 1 if isinstance(instruction, Take) else -1
            kept[owners[instruction.variable.name]] += sign * instruction.variable.num_bytes(rows, itemsize)
    if not program.is_last and not program.is_output_kept:  # gone once it has been sent
        kept[program.layers[-1].index] -= program.output.num_bytes(rows, itemsize)
    return kept


def _owners(program: StageProgram) -> Mapping[str, int]:
    """For every variable of the forward the layer that it belongs to."""
    first, last = program.layers[0].index, program.layers[-1].index
    owners = {program.input.name: first}
    units = {part.index: layer.index for layer in program.layers for part in layer.weighted}
    unit = first
    for instruction in operators(program.forward):
        match instruction:
            case Affine(part, _, _) | Activate(part, _, _) | Normalise(part, _, _, _):
                unit = units[part.index]
            case LossAndGrad():
                unit = last
        # What has no part of its own, a dropout or a sum, belongs to the block whose parts come before it.
        for variable in instruction:
            if isinstance(variable, Variable):
                owners.setdefault(variable.name, unit)
    return owners


# Devices


def _devices(search: Search, candidate: Candidate) -> tuple[DeviceMemory, ...]:
    loads = rank_loads(candidate.stages)
    instants = [(None, 0)] * len(loads) if candidate.sharding else _instants(search, candidate)
    predictions = prediction_memory(search, candidate) or (None,) * len(loads)
    return tuple(
        DeviceMemory(
            device=load.device,
            rank=load.stages[0].rank,
            stages=load.stages,
            training=_together(load),
            limit_bytes=load.limit_bytes,
            peak_action=action,
            in_flight=in_flight,
            prediction=prediction,
        )
        for load, (action, in_flight), prediction in zip(loads, instants, predictions, strict=True)
    )


def _together(load: RankLoad) -> StageMemory:
    """The parts of all stages of a device."""
    names = StageMemory.__dataclass_fields__
    return StageMemory(**{name: sum(getattr(stage.memory, name) for stage in load.stages) for name in names})


def _instants(search: Search, candidate: Candidate) -> list[tuple[Action | None, int]]:
    """For every rank the action of its peak and the microbatches in flight at it."""
    found = []
    for replica, layout in enumerate(search.layouts(candidate)):
        plans = [plan for plan in candidate.stages if plan.replica_index == replica]
        stages = [search.model.stage(*plan.layers) for plan in plans]
        found += [_instant(layout, stages, rank) for rank in range(layout.schedule.num_ranks)]
    return found


def _instant(layout: Layout, stages: Sequence[StageCost], rank: int) -> tuple[Action | None, int]:
    """When a rank's row holds most: in which action, with how many microbatches in flight."""
    none = ReplayCosts(size_class=layout.size_class, seconds={}, send_forward_s=(), send_backward_s=())
    costs = with_bytes(none, layout.schedule, stages, layout.distinct_sizes)
    row = layout.schedule.rows[rank]
    position = find_memory_peak(row, costs, costs.static_of(rank)).position
    if position < 0:
        return None, 0
    begun = {action[::2] for action in row[: position + 1] if action.kind is Kind.F}
    ended = {action[::2] for action in row[:position] if action.kind in (Kind.B, Kind.W)}
    return row[position], len({microbatch for _, microbatch in begun - ended})


# What would help


def _remedies(search: Search, found: Footprint) -> tuple[Remedy, ...]:
    """Changes that keep the gradient and the split, and relieve the fullest device."""
    candidate, before = found.candidate, found.fullest.training.peak_bytes
    if candidate.sharding:
        return ()
    shape = Shape.of(candidate)
    remedies = list(_more_microbatches(search, found, shape))
    if shape.num_ranks == shape.num_stages > 1 and shape.schedule != "1f1b":
        remedies.append(_remedy(search, found, replace(shape, schedule="1f1b")))
    if not candidate.recompute:
        remedies.append(_remedy(search, found, shape, is_recomputing=True))
    return tuple(remedy for remedy in remedies if remedy.peak_bytes < before)


def _more_microbatches(search: Search, found: Footprint, shape: Shape) -> Iterator[Remedy]:
    """Twice as many; where the candidate does not fit, doubled again until it does, or comes no closer."""
    remedy = None
    most = min(shape.minibatch_size // shape.num_replicas, MOST_MICROBATCHES)
    while 2 * shape.num_microbatches <= most:
        shape = replace(shape, num_microbatches=2 * shape.num_microbatches)
        before, remedy = remedy, _remedy(search, found, shape)
        if before is not None and remedy.peak_bytes >= before.peak_bytes:
            remedy = before
            break
        if remedy.fits:
            break
    if remedy is not None:
        yield remedy


def _remedy(search: Search, found: Footprint, shape: Shape, *, is_recomputing: bool = False) -> Remedy:
    """The fullest device under another shape, or with recomputation: of what need be on one device, else of all."""
    segments = segments_of(found.candidate.stages)
    if is_recomputing and len(segments) == 1:
        segments = [search.recomputing_segment(shape, segments[0].device)]
    elif is_recomputing:
        segments = [segment.recomputing_all() for segment in segments]
    loads = rank_loads(search.stages_of(shape, segments))
    # What was relieved may leave another device the fullest.
    fullest = max(loads, key=lambda load: load.peak_bytes / load.limit_bytes)
    return Remedy(
        num_microbatches=shape.num_microbatches,
        schedule=shape.schedule,
        is_recomputing=is_recomputing or bool(found.candidate.recompute),
        peak_bytes=fullest.peak_bytes,
        fits=fullest.peak_bytes <= fullest.limit_bytes,
    )
