"""The plan file: one candidate with the experiment it was made for, written by `plan`, trained by `train --plan`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from partition.config import AnyConfig, flatten, resolve
from partition.config.file_start import read_start
from partition.config.first_problem import first_problem
from partition.errors import PartitionError
from partition.plan.candidate import Candidate
from partition.plan.certificate import Certificate
from partition.plan.compare import SCHEMA_VERSION
from partition.plan.progress import without_progress
from partition.plan.search import Search
from partition.plan.shape import SCHEDULES, SHARDED_SCHEDULE, STRATEGIES, Shape, segments_of

_FREE_TO_CHANGE = (
    "name",
    "data",
    "checkpoint",
    "planner",
    "training.epochs",
    "training.steps",
    "training.seed",
    "training.timeout",
    "optimizer.lr_schedule",
    "optimizer.lr_final",
    "optimizer.warmup_steps",
)
"""Keys of an experiment that a plan does not depend on."""
_NAME = re.compile(r"[A-Za-z0-9@:._+-]{1,100}")
MOST_BYTES = 64 * 2**20
"""A plan file is far smaller; anything larger is not one."""


def plan_record(
    config: AnyConfig, candidate: Candidate, verdict: str, certificate: Certificate | None = None
) -> dict[str, object]:
    """The JSON document of a plan; without a certificate it does not claim to be the best choice."""
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": resolve(config),
        "candidate": asdict(candidate),
        "verdict": verdict,
        "certificate": None if certificate is None else asdict(certificate),
    }


def read_plan(path: Path, search: Search) -> Candidate:
    """The candidate of a plan file, priced anew for the experiment in hand.

    Raises PartitionError for a file that is no plan, and for one that was made for another experiment.
    """
    document = _read_json(path)
    if document.get("schema_version") != SCHEMA_VERSION:
        version = document.get("schema_version")
        raise PartitionError(f"{path}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; plan again")
    _check_experiment(path, document.get("experiment"), search.settings)
    try:
        candidate = TypeAdapter(Candidate).validate_python(document.get("candidate"), strict=False)
    except ValidationError as error:
        problem = first_problem(error, "candidate")
        raise PartitionError(f"{path}: {problem}; plan again with `partition plan`") from None
    _check_layout(path, candidate, search)
    broken = search.broken_by(candidate)
    if broken:
        raise PartitionError(f"{path}: breaks planner.keep_together or planner.pinned: {broken}; plan again")
    if candidate.strategy == "sharded":
        priced = search.price_sharded(candidate.num_devices)
    else:
        priced = search.price(Shape.of(candidate), segments_of(candidate.stages))
    candidate = without_progress(candidate)
    if priced != candidate:
        different = next(
            field.name for field in fields(Candidate) if getattr(priced, field.name) != getattr(candidate, field.name)
        )
        raise PartitionError(f"{path}: candidate.{different} is not what this experiment gives; plan again")
    return priced


def planned_experiment(path: Path) -> Mapping[str, Any]:
    """The experiment that a plan file was made for, in the form of an experiment file.

    Raises PartitionError for a file that is no plan.
    """
    experiment = _read_json(path).get("experiment")
    if not isinstance(experiment, dict):
        raise PartitionError(f"{path}: is not a plan file (no experiment); make one with `partition plan`")
    return experiment


def claims_of(record: Mapping[str, Any]) -> Mapping[str, object]:
    """What a plan's document says of its choice beyond what `read_plan` holds against the experiment, key by key."""
    candidate, certificate = record.get("candidate"), record.get("certificate")
    candidate = candidate if isinstance(candidate, dict) else {}
    predicted = candidate.get("predicted")
    progress_s = predicted.get("relative_progress_s") if isinstance(predicted, dict) else None
    of_choice = certificate if isinstance(certificate, dict) else {"certificate": certificate}
    return {**of_choice, "name": candidate.get("name"), "relative_progress_s": progress_s,
            "verdict": record.get("verdict")}  # fmt: skip


def planned_claims(path: Path) -> Mapping[str, object] | None:
    """The claims of a plan file; None where it has no certificate.

    Raises PartitionError for a file that is no plan.
    """
    document = _read_json(path)
    return None if document.get("certificate") is None else claims_of(document)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = read_start(path, MOST_BYTES)
    except OSError as error:
        raise PartitionError(f"{path}: cannot be read ({error.strerror}); make it with `partition plan`") from None
    if len(content) > MOST_BYTES:
        raise PartitionError(f"{path}: more than {MOST_BYTES} bytes are too many for a plan; plan again")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or a number of thousands of digits
        raise PartitionError(f"{path}: is not a plan file (no JSON); make one with `partition plan`") from None
    if not isinstance(document, dict):
        raise PartitionError(f"{path}: is not a plan file (no JSON object); make one with `partition plan`")
    return document


def _check_experiment(path: Path, planned: object, config: AnyConfig) -> None:
    if not isinstance(planned, dict):
        raise PartitionError(f"{path}: is not a plan file (no experiment); make one with `partition plan`")
    before, now = dict(flatten(planned)), dict(flatten(resolve(config)))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not _is_free(key):
            planned, asked = (_short(repr(of[key])) if key in of else "nothing" for of in (before, now))
            raise PartitionError(
                f"{path}: was made for {_short(key)} = {planned}, the experiment says {asked}; plan again"
            )


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in _FREE_TO_CHANGE)


def _short(text: str) -> str:
    """On one line, and not longer than a person reads."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_layout(path: Path, candidate: Candidate, search: Search) -> None:
    """Refuse stages that do not cover the layers in order, or stand on devices that are not there."""
    _check_step(path, candidate, search)
    num_devices, num_replicas = candidate.num_devices, candidate.num_replicas
    has_grid = 1 <= num_replicas <= num_devices <= len(search.cluster.devices) and num_devices % num_replicas == 0
    of_first = [stage for stage in candidate.stages if stage.replica_index == 0]
    ends = [stage.last_layer + 1 for stage in of_first]
    is_chain = bool(ends) and [stage.first_layer for stage in of_first] == [0, *ends[:-1]]
    covers = is_chain and ends[-1] == search.costs.num_layers and len(of_first) == candidate.num_stages
    has_layers = all(stage.first_layer <= stage.last_layer for stage in of_first)
    devices = {stage.device_index for stage in of_first}
    most = len(search.cluster.devices) if num_replicas == 1 else num_devices // max(1, num_replicas)
    has_devices = all(0 <= one < most for one in devices) and len(devices) * num_replicas == num_devices
    _check_recomputation(path, candidate, search)
    if not (has_grid and covers and has_layers and has_devices):
        raise PartitionError(
            f"{path}: its stages do not cover layers 0-{search.costs.num_layers - 1} in order on distinct devices; "
            "plan again with `partition plan`"
        )


def _check_recomputation(path: Path, candidate: Candidate, search: Search) -> None:
    """Refuse runs of layers that are not a stage's own, in order and apart, and those without costs."""
    for stage in candidate.stages:
        ends = [layer for span in stage.recompute for layer in span]
        firsts, lasts = ends[::2], ends[1::2]
        is_apart = all(last + 1 < first for last, first in zip(lasts, firsts[1:], strict=False))
        is_own = all(stage.first_layer <= first <= last <= stage.last_layer for first, last in stage.recompute)
        if ends and not (is_apart and is_own and search.costs.can_recompute):
            raise PartitionError(
                f"{path}: stage {stage.stage_index} recomputes {_short(repr(stage.recompute))}, which are no runs "
                f"of its layers {stage.first_layer}-{stage.last_layer}, in order and apart; plan again"
            )


def _strategy_of(candidate: Candidate, search: Search) -> str:
    """What the figures of a candidate amount to."""
    if candidate.sharding is not None:
        return "sharded"
    if candidate.num_replicas > 1:
        return "hybrid" if candidate.num_devices > candidate.num_replicas else "data_parallel"
    if candidate.num_devices > 1:
        return "pipeline"
    if candidate.minibatch_size < search.minibatch_size:
        return "shrink"
    if candidate.recompute:
        return "recompute"
    return "accumulate" if candidate.num_microbatches > 1 else "whole"


def _check_step(path: Path, candidate: Candidate, search: Search) -> None:
    """Refuse what is not known by name, and another minibatch than the experiment's unless it is a smaller one."""
    if not _NAME.fullmatch(candidate.name):
        raise PartitionError(f"{path}: {_short(repr(candidate.name))} is no candidate's name; plan again")
    for what, given, known in (
        ("strategy", candidate.strategy, STRATEGIES),
        ("schedule", candidate.schedule, (*SCHEDULES, SHARDED_SCHEDULE)),
    ):
        if given not in known:
            raise PartitionError(f"{path}: {what} {_short(repr(given))} is not known; take one of {', '.join(known)}")
    size, asked = candidate.minibatch_size, search.minibatch_size
    if not (size == asked or (candidate.strategy == "shrink" and size < asked)):
        raise PartitionError(
            f"{path}: minibatch {size} of strategy {candidate.strategy!r} is not the experiment's, {asked}; "
            "plan again with `partition plan`"
        )
    if not 1 <= candidate.num_microbatches <= size:
        raise PartitionError(
            f"{path}: num_microbatches is {candidate.num_microbatches}, a minibatch of {size} takes 1 to {size}; "
            "plan again with `partition plan`"
        )
    if candidate.strategy != _strategy_of(candidate, search) or (
        (candidate.schedule == SHARDED_SCHEDULE) is not (candidate.strategy == "sharded")
    ):
        raise PartitionError(
            f"{path}: strategy {candidate.strategy!r} with schedule {candidate.schedule!r} is not what its replicas, "
            "stages and microbatches are; plan again with `partition plan`"
        )
