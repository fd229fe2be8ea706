"""Measured costs: curves between what was measured, files that are none, prices in place of rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from partition.config import ExperimentConfig
from partition.costs import CostsFile, Profile, build_costs, read_costs
from partition.costs.profile import Curve, LinkCurve, Machine, Messages, Overheads
from partition.errors import PartitionError
from partition.plan import Search, compare, compare_with
from partition.plan.certificate import arithmetic_bound_s
from partition.plan.compare import Comparison
from partition.plan.plan_file import plan_record
from partition.plan.verification import verify_plan
from partition.runtime.profiling import measure_layers
from partition.runtime.workers import Fleet
from partition.runtime.world import LocalWorld
from tests.runtime.conftest import build_config

Make = Callable[..., ExperimentConfig]


def test_seconds_lie_on_a_line_between_measured_sizes_and_go_on_along_the_last() -> None:
    curve = Curve(sizes=(2, 4, 8), seconds=(1.0, 2.0, 6.0))
    assert [curve.at(size) for size in (1, 2, 3, 4, 6, 8, 10)] == [1.0, 1.0, 1.5, 2.0, 4.0, 6.0, 8.0]
    assert Curve(sizes=(4,), seconds=(2.0,)).at(8) == 4.0


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "not a costs file"), ("[]", "not a costs file"), ('{"schema_version": 3}', "schema_version"),
     ("[" * 100_000, "not a costs file")],
)  # fmt: skip
def test_what_is_no_costs_file_is_refused_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PartitionError, match=words) as caught:
        read_costs(str(path))
    assert "\n" not in str(caught.value)


CURVE = {"sizes": [1], "seconds": [1e-3]}
MACHINE = {
    "device": "d",
    "host": "h",
    "torch": "t",
    "num_threads": 1,
    "num_ranks": 1,
    "measured_at": "2026",
    "took_s": 0,
}
DOCUMENT = {
    "kind": "cpu",
    "number_format": "float32",
    "optimizer": "sgd",
    "machine": MACHINE,
    "operators": {"affine 6x8 bias": CURVE},
    "overheads": {"action_s": 0, "step_s": 0, "update_s": 0, "update_s_per_element": 0},
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "tpu"}, 'kind: "tpu" is not valid here'),
        ({"optimizer": None}, "optimizer: null is not valid here"),
        ({"overheads": 1}, "overheads: 1 is not valid here"),
        ({"overheads": {}}, "overheads.action_s: is missing"),
        ({"machine": []}, "machine: is empty"),
        ({"machine": {**MACHINE, "device": "a\nb"}}, "machine.device: is not a line of at most 200 letters"),
        ({"number_format": "x" * 201}, "number_format: is not a line of at most 200 letters"),
        ({"more": 1}, "more: is not known"),
        ({"operators": {}}, "operators: is empty"),
        ({"operators": {"a": {**CURVE, "seconds": [-1]}}}, "operators.a.seconds.0: -1 is too small; the least is 0"),
        (
            {"operators": {"a": {**CURVE, "sizes": [1, 2]}}},
            "operators.a: sizes, seconds and spread are not of one",
        ),
        ({"operators": {"a": CURVE, "b" * 999: {**CURVE, "seconds": [0.0]}}}, "b... is said to take 0 s on 1 examples"),
    ],
)
def test_what_is_wrong_in_a_costs_file_is_said_in_words_and_how_to_have_another(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(DOCUMENT), encoding="utf-8")
    assert read_costs(str(path)).operators["affine 6x8 bias"].seconds == (1e-3,)
    path.write_text(json.dumps({**DOCUMENT, **changes}), encoding="utf-8")
    with pytest.raises(PartitionError) as caught:
        read_costs(str(path))
    message = str(caught.value)
    assert words in message
    assert message.startswith(f"planner.costs: {path}: ")
    assert message.endswith("; name one that `partition profile CONFIG --costs-file FILE` wrote")
    assert len(message.replace(str(path), "").splitlines()) == 1
    assert "Input should" not in message


def test_operators_that_take_no_time_are_refused_before_anything_is_divided_by_it(tmp_path: Path) -> None:
    """Seconds of 0 came to a ZeroDivisionError: of the lower bound, or of examples by the seconds of a step."""
    config = build_config()
    document = json.loads(costs_file(config).model_dump_json())
    for of in document["operators"].values():
        of["seconds"] = [0.0 for _ in of["seconds"]]
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    planner = config.planner.model_copy(update={"costs": str(path)})
    with pytest.raises(PartitionError, match=r"operators: .* is said to take 0 s on 1 examples, the least is 1e-12"):
        compare(config.model_copy(update={"planner": planner}))


def test_no_step_is_below_the_bound_where_microbatches_are_larger_than_any_that_was_measured(tmp_path: Path) -> None:
    """A line through the last two sizes goes on at a better rate than theirs."""
    config = build_config()
    document = json.loads(costs_file(config).model_dump_json())
    for of in document["operators"].values():
        of.update(sizes=[1, 2], seconds=[1e-4, 1.1e-4], spread=[])
    _, comparison = comparison_at(config, tmp_path / "costs.json", {"operators": document["operators"]})
    assert comparison.chosen is not None
    assert comparison.chosen.predicted is not None
    assert comparison.certificate is not None
    assert 0 < comparison.certificate.lower_bound_s <= comparison.chosen.predicted.step_s


def test_sharded_parameters_are_not_held_to_what_stages_compute_again(tmp_path: Path) -> None:
    """A layer alone keeps its output, which stages compute again: it took less than the bound of any split."""
    config = build_config(num_devices=2, planner={"strategies": ("sharded",)})
    devices = tuple(device.model_copy(update={"kind": "cpu"}) for device in config.cluster.devices)
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": devices})})
    document = json.loads(costs_file(config).model_dump_json())
    for key, of in document["operators"].items():
        of.update(sizes=[1], seconds=[1.0 if key.endswith("in place") else 1e-9], spread=[])
    search, comparison = comparison_at(config, tmp_path / "costs.json", {"operators": document["operators"]})
    assert comparison.chosen is not None
    assert comparison.chosen.sharding is not None
    assert comparison.chosen.predicted is not None
    assert comparison.certificate is not None
    assert arithmetic_bound_s(search) > comparison.chosen.predicted.step_s >= comparison.certificate.lower_bound_s
    plan = tmp_path / "plan.json"
    record = plan_record(search.config, comparison.chosen, comparison.verdict, comparison.certificate)
    plan.write_text(json.dumps(record), encoding="utf-8")
    assert all(check.passed for check in verify_plan(plan, search)[1])


def profile_of(num_ranks: int, *links: tuple[int, int]) -> Profile:
    """Of so many ranks, with these links measured."""
    curve = Curve(sizes=(1,), seconds=(1e-3,))
    curves = tuple(LinkCurve(source=one, destination=other, curve=curve) for one, other in links)
    messages = Messages(send=curve, receive=curve, links=curves, sums=curve, share_s=0.0) if links else None
    file = CostsFile.model_validate({**DOCUMENT, "machine": {**MACHINE, "num_ranks": num_ranks}})
    return Profile(file=file.model_copy(update={"messages": messages}), path="costs.json")


@pytest.mark.parametrize(
    ("profile", "num_devices", "words"),
    [
        (profile_of(1), 1, ""),
        (profile_of(1), 2, "links not measured"),
        (profile_of(2, (0, 1), (1, 0)), 1, ""),
        (profile_of(2, (0, 1), (1, 0)), 2, ""),
        (profile_of(2, (0, 1), (1, 0)), 4,
         "links to further ranks not measured, sums over other than 2 ranks computed from links"),
        (profile_of(3, (0, 1), (1, 0), (1, 2), (2, 1)), 3, "sums over other than 3 ranks computed from links"),
        (profile_of(3, (0, 1), (1, 0), (1, 2), (2, 1)), 2, "sums over other than 3 ranks computed from links"),
        (profile_of(2, (1, 0)), 2, "links not measured"),
    ],
)  # fmt: skip
def test_what_was_not_measured_is_said(profile: Profile, num_devices: int, words: str) -> None:
    assert profile.unmeasured(num_devices) == words


def test_a_missing_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match="partition profile"):
        read_costs(str(tmp_path / "none.json"))


def costs_file(config: ExperimentConfig) -> CostsFile:
    """Layers measured here, links made up."""
    layers = measure_layers(config, LocalWorld(1, 1), 2**30, budget_s=0.01)
    line = Curve(sizes=(8, 1024), seconds=(1e-4, 2e-4))
    return CostsFile(
        kind="cpu",
        number_format="float32",
        optimizer=config.optimizer.name,
        machine=Machine(
            device="d", host="h", torch="t", num_threads=1, num_ranks=2, measured_at="2026-01-01", took_s=0
        ),
        operators=layers.operators,
        overheads=Overheads(**layers.overheads.model_dump()),
        messages=Messages(
            send=line, receive=line, links=(LinkCurve(source=0, destination=1, curve=line),), sums=line, share_s=1e-4
        ),
    )


def test_every_candidate_is_priced_by_measured_costs_and_runs_on_simulated_clocks_as_predicted(tmp_path: Path) -> None:
    config = build_config(planner={"num_microbatches": (4,), "num_stages": (2, 4)})
    path = tmp_path / "costs.json"
    path.write_text(costs_file(config).model_dump_json(), encoding="utf-8")
    search = Search(config.model_copy(update={"planner": config.planner.model_copy(update={"costs": str(path)})}))
    network = search.network
    x = np.zeros((config.training.minibatch_size, network.layers[0].in_features), dtype=np.float32)
    out_features = network.layers[-1].out_features
    y = (
        np.zeros(len(x), dtype=np.int64)
        if network.loss.has_class_targets
        else np.zeros((len(x), out_features), x.dtype)
    )
    ran = 0
    for candidate in search.candidates():
        if candidate.feasible and candidate.predicted and not candidate.sharding:
            assert candidate.cost_source.startswith("measured on d, 2 ranks at once")
            result = Fleet(search, candidate).train(x, y, np.arange(candidate.minibatch_size))
            assert result.step_s == pytest.approx(candidate.predicted.step_s, rel=1e-12)
            ran += 1
    assert ran > 5


def comparison_at(config: ExperimentConfig, path: Path, changes: dict[str, object]) -> tuple[Search, Comparison]:
    """The comparison by a costs file of two ranks, with some of its keys changed."""
    document = {**json.loads(costs_file_of_two(config)), **changes}
    path.write_text(json.dumps(document), encoding="utf-8")
    planner = config.planner.model_copy(update={"costs": str(path)})
    search = Search(config.model_copy(update={"planner": planner}))
    return search, compare_with(search)


@cache
def _costs_text(number_format: str) -> str:
    return costs_file(build_config(number_format=number_format)).model_dump_json()


def costs_file_of_two(config: ExperimentConfig) -> str:
    """Measured once, so that what is compared was measured alike."""
    return _costs_text(config.precision.compute)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_device_that_computes_alone_is_faster_by_what_was_measured(tmp_path: Path, num_devices: int) -> None:
    config = build_config(num_devices=num_devices)
    path = tmp_path / "costs.json"
    alone = {"factor": 0.75, "spread": 0.1}
    (_, before), (search, after) = (comparison_at(config, path, {"alone": one}) for one in (None, alone))
    for one in after.candidates:
        other = before.candidate(one.name)
        if one.predicted and other and other.predicted:
            factor = 0.75 if one.num_devices == 1 else 1.0
            assert one.predicted.step_s == pytest.approx(factor * other.predicted.step_s)
    assert {one.num_devices for one in after.candidates if one.predicted} == set(range(1, num_devices + 1))
    assert after.chosen is not None
    assert after.certificate is not None
    assert after.chosen.predicted is not None
    assert after.certificate.lower_bound_s <= after.chosen.predicted.step_s
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(plan_record(search.config, after.chosen, after.verdict)), encoding="utf-8")
    _, checks = verify_plan(plan, search)
    assert all(check.passed for check in checks)


def test_a_file_of_an_earlier_version_is_read_as_if_alone_were_no_faster(tmp_path: Path) -> None:
    config, path = build_config(num_devices=2), tmp_path / "costs.json"
    document = json.loads(costs_file_of_two(config))
    del document["alone"]
    path.write_text(json.dumps({**document, "schema_version": 1}), encoding="utf-8")
    file = read_costs(str(path))
    assert file.alone is None
    assert Profile(file=file, path="").alone.factor == 1.0


@pytest.mark.parametrize("factor", [0.0, 1.5])
def test_a_factor_that_makes_no_sense_is_refused(tmp_path: Path, factor: float) -> None:
    with pytest.raises(PartitionError, match=r"alone\.factor: "):
        comparison_at(build_config(), tmp_path / "costs.json", {"alone": {"factor": factor, "spread": 0.0}})


def test_one_device_exchanges_no_numbers_with_others(tmp_path: Path) -> None:
    """The end of its step had the exchange of the ranks in it."""
    config, path = build_config(num_devices=2), tmp_path / "costs.json"
    messages = json.loads(costs_file_of_two(config))["messages"]
    whole = []
    for share_s in (0.0, 1.0):
        search, _ = comparison_at(config, path, {"messages": {**messages, "share_s": share_s}})
        whole.append(search.whole().predicted)
    assert whole[0] == whole[1]


def test_costs_of_another_network_or_optimizer_are_refused(tmp_path: Path) -> None:
    config = build_config()
    path = tmp_path / "costs.json"
    document = json.loads(costs_file(config).model_dump_json())
    path.write_text(json.dumps({**document, "optimizer": "adamw"}), encoding="utf-8")
    planner = config.planner.model_copy(update={"costs": str(path)})
    with pytest.raises(PartitionError, match="optimizer adamw"):
        Search(config.model_copy(update={"planner": planner}))
    operators = {"affine 1x1": {"sizes": [1], "seconds": [1.0]}}
    path.write_text(json.dumps({**document, "operators": operators}), encoding="utf-8")
    with pytest.raises(PartitionError, match="no measurement of"):
        Search(config.model_copy(update={"planner": planner})).candidates()


def test_faster_links_divide_what_bytes_take_and_no_latency(tmp_path: Path) -> None:
    """Measured links take 0.1 ms for next to nothing and 0.2 ms for 1024 bytes; so do sums."""
    config = build_config(num_devices=2)
    path = tmp_path / "costs.json"
    path.write_text(costs_file(config).model_dump_json())
    planner = config.planner.model_copy(update={"costs": str(path)})
    cluster, _ = build_costs(config.model_copy(update={"planner": planner}))
    faster = replace(cluster, bandwidth_factor=4.0)
    assert cluster.transfer_s(0, 1, 1024) == pytest.approx(2e-4)
    assert faster.transfer_s(0, 1, 1024) == pytest.approx(1.25e-4)
    assert faster.transfer_s(0, 1, 0) == cluster.transfer_s(0, 1, 0) == pytest.approx(1e-4)
    assert faster.sum_s([0, 1], [1024, 1024]) == pytest.approx(2 * 1.25e-4)
