"""The comparison: candidates, the choice, the words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from partition.config import ExperimentConfig, load_config
from partition.errors import PartitionError
from partition.plan import Candidate, Search, compare, comparison_record
from partition.plan.choice import choose
from partition.plan.plan_file import plan_record, read_plan
from partition.plan.shape import STRATEGIES

from .conftest import build_config, with_memory

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def peak(config: ExperimentConfig, name: str) -> int:
    found = compare(config).candidate(name)
    assert found is not None
    assert found.predicted is not None
    return max(found.predicted.peak_bytes)


@pytest.mark.parametrize(
    "path",
    # Of unlike devices every order is tried, which takes seconds.
    [pytest.param(of, marks=[pytest.mark.slow] * (of.stem == "unlike_devices"), id=of.stem) for of in CONFIGS],
)
def test_shipped_experiments_have_a_choice_to_make(path: Path) -> None:
    comparison = compare(load_config(path))
    assert comparison.chosen is not None
    assert comparison.chosen.exact_gradient
    assert not any(one.feasible for one in comparison.candidates if one.strategy == "whole")
    names = [one.name for one in comparison.candidates]
    assert len(set(names)) == len(names)


def test_recommender_has_about_three_billion_parameters() -> None:
    path = next(path for path in CONFIGS if path.stem == "recommender")
    assert Search(load_config(path)).network.parameter_elements == pytest.approx(3e9, rel=0.05)


def test_same_answer_byte_for_byte(config: ExperimentConfig) -> None:
    texts = [json.dumps(comparison_record(compare(config))) for _ in range(2)]
    assert texts[0] == texts[1]


def test_record_has_the_promised_fields(config: ExperimentConfig) -> None:
    record: dict[str, Any] = json.loads(json.dumps(comparison_record(compare(config))))
    assert {"schema_version", "candidates", "chosen", "certificate", "not_considered", "verdict"} <= record.keys()
    candidate = record["candidates"][0]
    assert {"name", "strategy", "feasible", "reason", "exact_gradient", "bit_identical", "num_devices", "num_stages",
            "num_replicas", "minibatch_size", "microbatch_size", "num_microbatches", "schedule", "recompute",
            "sharding", "learning_rate", "cost_source", "stages", "predicted"} <= candidate.keys()  # fmt: skip
    stage = candidate["stages"][0]
    assert {"stage_index", "device", "rank", "first_layer", "last_layer", "memory"} <= stage.keys()
    parts = [value for key, value in stage["memory"].items() if key != "peak_bytes"]
    assert sum(parts) == stage["memory"]["peak_bytes"]
    assert {"step_s", "samples_per_s", "relative_progress_s", "device_seconds_per_sample", "bubble_fraction",
            "communication_bytes", "peak_bytes"} <= candidate["predicted"].keys()  # fmt: skip


def test_whole_is_chosen_on_one_large_device(config: ExperimentConfig) -> None:
    comparison = compare(with_memory(config, 2**30))
    assert comparison.chosen is not None
    assert comparison.chosen.exact_gradient
    assert "does not fit" not in comparison.verdict


def test_accumulation_is_chosen_where_only_portions_fit(config: ExperimentConfig) -> None:
    comparison = compare(with_memory(config, peak(config, "accumulate-4")))
    assert comparison.chosen is not None
    assert comparison.chosen.strategy == "accumulate"
    assert "The whole minibatch of 22 does not fit on one device: it needs" in comparison.verdict
    assert "Accumulate: accumulate-" in comparison.verdict


def test_pipeline_is_chosen_where_only_parts_of_the_graph_fit() -> None:
    strategies = tuple(strategy for strategy in STRATEGIES if strategy != "recompute")
    config = build_config(planner={"num_microbatches": (4,), "strategies": strategies})
    limit = peak(config, "data_parallel-2x4") - 1
    comparison = compare(with_memory(config, limit, limit))
    assert comparison.chosen is not None
    assert comparison.chosen.strategy == "pipeline"
    assert "No exact way on one device fits." in comparison.verdict


def test_shrinking_is_chosen_only_where_nothing_exact_fits(config: ExperimentConfig) -> None:
    narrowed = build_config(planner={"strategies": ("whole", "shrink")})
    comparison = compare(with_memory(narrowed, peak(config, "whole") - 1))
    assert comparison.chosen is not None
    assert comparison.chosen.strategy == "shrink"
    assert comparison.chosen.minibatch_size == max(one.minibatch_size for one in comparison.candidates if one.feasible)
    assert "NOT the gradient of the whole minibatch" in comparison.verdict


def test_largest_smaller_minibatch_that_fits_is_found(config: ExperimentConfig) -> None:
    for size in (5, 13, 21):
        limit = max(Search(config).price(
            replace(_shape(config, "whole"), minibatch_size=size), _whole(config)
        ).predicted.peak_bytes)  # type: ignore[union-attr]  # fmt: skip
        feasible = [one.minibatch_size for one in compare(with_memory(config, limit)).candidates
                    if one.feasible and one.strategy == "shrink"]  # fmt: skip
        assert max(feasible) == size


def _shape(config: ExperimentConfig, name: str) -> Any:
    from partition.plan.shape import Shape

    return Shape(name=name, strategy=name, minibatch_size=config.training.minibatch_size, num_microbatches=1)


def _whole(config: ExperimentConfig) -> Any:
    from partition.plan import Segment

    return [Segment(0, 0, Search(config).network.num_layers - 1)]


def test_nothing_fits_says_what_comes_closest(config: ExperimentConfig) -> None:
    comparison = compare(with_memory(config, 1000, 1000))
    assert comparison.chosen is None
    assert comparison.certificate is None
    assert "Nothing fits. The closest is" in comparison.verdict


@pytest.mark.parametrize(
    ("planner", "reason"),
    [
        ({"num_stages": (9,)}, "9 stages, but the network has 4 layers; take num_stages <= 4"),
        (
            {"num_microbatches": (23,)},
            "23 microbatches, but the minibatch has 22 examples; take num_microbatches <= 22",
        ),
    ],
)
def test_what_cannot_be_laid_out_says_why(planner: dict[str, Any], reason: str) -> None:
    candidates = compare(build_config(planner=planner)).candidates
    found = [one for one in candidates if one.strategy == "pipeline" and not one.stages]
    assert found
    assert {one.reason for one in found} == {reason}


def test_more_stages_than_devices_says_why() -> None:
    narrowed = build_config(planner={"num_stages": (3,)})
    pipelines = [one for one in compare(with_memory(narrowed, 2**20, 2**20)).candidates if one.strategy == "pipeline"]
    assert {one.reason for one in pipelines} == {"3 devices are needed, there are 2; take num_stages <= 2"}


def test_fewer_microbatches_than_stages_and_uneven_ones_are_planned() -> None:
    candidates = compare(build_config(planner={"num_stages": (4,), "num_microbatches": (2, 3)})).candidates
    pipelines = {one.num_microbatches: one for one in candidates if one.strategy == "pipeline"}
    assert pipelines[2].feasible
    assert pipelines[3].microbatch_size == 8


def test_planner_lists_narrow_the_search() -> None:
    planner = {"strategies": ("pipeline",), "schedules": ("gpipe",), "num_stages": (2,), "num_microbatches": (4,)}
    assert [one.name for one in compare(build_config(planner=planner)).candidates] == ["pipeline-2x4-gpipe"]


def test_splits_that_would_take_minutes_are_not_searched_where_the_fastest_does_not_fit() -> None:
    """A few bytes less than the fastest split needs; with room for it, it is taken at once."""
    planner = {"strategies": ("pipeline",), "schedules": ("1f1b",), "num_stages": (2,), "num_microbatches": (4,)}
    config = build_config(model={"hidden_features": (2,) * 800}, planner=planner)
    (roomy,) = compare(with_memory(config, 2**20, 2**20)).candidates
    assert roomy.feasible
    assert roomy.predicted is not None
    tight = with_memory(config, *[max(roomy.predicted.peak_bytes) - 1] * 2)
    (refused,) = Search(tight).candidates()
    assert not refused.feasible
    assert "those that may fit are too many to search with 801 layers in 2 stages" in refused.reason


def test_one_device_takes_any_number_of_layers() -> None:
    assert Search(with_memory(build_config(model={"hidden_features": (2,) * 2000}), 2**20))


def test_objectives_choose_differently(config: ExperimentConfig) -> None:
    candidates = compare(config).candidates
    exact = [one for one in candidates if one.feasible and one.exact_gradient and one.predicted]
    fastest = choose(candidates, "step_time")
    assert fastest is not None
    assert fastest.predicted is not None
    assert fastest.predicted.step_s <= min(one.predicted.step_s for one in exact if one.predicted) * (1 + 1e-6)
    fewest = choose(candidates, "fewest_devices")
    assert fewest is not None
    assert fewest.num_devices == 1
    cheapest = choose(candidates, "device_seconds")
    assert cheapest is not None
    assert cheapest.predicted is not None
    assert cheapest.predicted.device_seconds_per_sample <= fewest.predicted.device_seconds_per_sample  # type: ignore[union-attr]


def test_ties_go_to_fewer_devices_and_less_memory(config: ExperimentConfig) -> None:
    exact = [one for one in compare(config).candidates if one.feasible and one.exact_gradient]
    same = [replace(one, predicted=replace(one.predicted, step_s=1.0)) for one in exact if one.predicted]
    chosen = choose(same, "step_time")
    assert chosen is not None
    assert chosen.num_devices == 1


def test_faster_links_never_predict_a_slower_step() -> None:
    def steps(bytes_per_s: float) -> dict[str, float]:
        links = {"intra_node": {"bytes_per_s": bytes_per_s, "latency_s": 1e-5}}
        cluster = {"devices": build_config().cluster.devices, "links": links}
        planner = {"num_stages": (2,)}
        found = compare(build_config(cluster=cluster, planner=planner)).candidates
        return {one.name: one.predicted.step_s for one in found if one.predicted}

    slow, fast = steps(1e6), steps(1e8)
    assert all(fast[name] <= slow[name] for name in slow)
    assert any(fast[name] < slow[name] for name in slow)


def test_learning_rate_of_a_smaller_minibatch_is_adapted() -> None:
    for optimizer, expected in (({"name": "sgd", "lr": 0.1}, 0.05), ({"name": "adam", "lr": 0.1}, 0.1 * 0.5**0.5)):
        config = build_config(optimizer=optimizer, planner={"minibatch_sizes": (11,)})
        found = compare(config).candidate("shrink-11")
        assert found is not None
        assert found.learning_rate == pytest.approx(expected)


# Plan files


def written(tmp_path: Path, config: ExperimentConfig, **changes: Any) -> Path:
    comparison = compare(config)
    assert comparison.chosen is not None
    record: Any = json.loads(json.dumps(plan_record(config, comparison.chosen, comparison.verdict)))
    for path, value in changes.items():
        place = record
        *parents, last = path.split("__")
        for key in parents:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value
    target = tmp_path / "plan.json"
    target.write_text(json.dumps(record))
    return target


def test_plan_file_round_trip(tmp_path: Path, config: ExperimentConfig) -> None:
    comparison = compare(config)
    again: Candidate = read_plan(written(tmp_path, config), Search(config))
    assert again == comparison.chosen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 99}, "schema_version is 99"),
        ({"candidate": None}, "candidate"),
        ({"candidate__num_stages": "many"}, r"candidate\.num_stages"),
        ({"candidate__stages": []}, "do not cover layers 0-3"),
        ({"candidate__stages__0__last_layer": 10**12}, "do not cover layers 0-3"),
        ({"candidate__stages__0__device_index": -1}, "do not cover layers 0-3"),
        ({"candidate__num_microbatches": 10**9}, "do not cover layers 0-3|microbatches"),
        ({"candidate__schedule": "nonsense"}, "nonsense"),
        ({"candidate__minibatch_size": 21}, "minibatch"),
        ({"candidate__minibatch_size": -1, "candidate__strategy": "shrink"}, "a minibatch of -1 takes"),
        ({"candidate__minibatch_size": 10**30, "candidate__strategy": "shrink"}, "is not the experiment's, 22"),
        ({"candidate__num_microbatches": 0}, "num_microbatches is 0, a minibatch of 22 takes 1 to 22"),
        ({"candidate__strategy": "magic"}, "strategy 'magic' is not known; take one of whole, shrink"),
        ({"candidate__name": "two\nlines"}, "is no candidate's name"),
        ({"candidate__name": "\x1b[31m"}, "is no candidate's name"),
        ({"candidate__name": "\ud800"}, "is no candidate's name"),
        ({"candidate__stages__0__memory": 3}, r"candidate\.stages\.0\.memory"),
        ({"candidate__stages__0__first_layer": 0.5}, r"candidate\.stages\.0\.first_layer"),
        (
            {"candidate__stages__0__recompute": [[0, 9]]},
            r"stage 0 recomputes \(\(0, 9\),\), which are no runs of its la",
        ),
        ({"candidate__stages__0__recompute": [[1, 0]]}, r"no runs of its layers"),
        ({"candidate__stages__0__recompute": [[0, 0], [1, 1]]}, r"no runs of its layers"),
        ({"candidate__stages__0__recompute": [[0, 0]] * 10**4}, r"recomputes \(\(0, 0\).*\.\.\., which are no runs"),
        ({"candidate__stages__0__recompute": [[0]]}, r"candidate\.stages\.0\.recompute"),
        ({"candidate__recompute": [[0, 0]]}, r"candidate\.recompute is not what this experiment gives"),
        ({"experiment__model__activation": "x" * 10**6}, r"made for model\.activation = 'xxx.*\.\.\., the experiment"),
        ({"experiment__a\nb": 3}, r"made for 'a\\nb' = 3"),
        ({"experiment": 3}, "no experiment"),
        ({"experiment__training__minibatch_size": 23}, "was made for training.minibatch_size = 23"),
    ],
)
def test_damaged_or_foreign_plan_is_refused(
    tmp_path: Path, config: ExperimentConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PartitionError, match=message) as caught:
        read_plan(written(tmp_path, config, **changes), Search(config))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\x00\xff", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_plan_is_refused(tmp_path: Path, config: ExperimentConfig, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PartitionError, match="is not a plan file"):
        read_plan(path, Search(config))


def test_missing_plan_is_refused(tmp_path: Path, config: ExperimentConfig) -> None:
    with pytest.raises(PartitionError, match="cannot be read"):
        read_plan(tmp_path / "none.json", Search(config))


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_plan_that_cannot_be_read_is_named(tmp_path: Path, config: ExperimentConfig, name: str) -> None:
    with pytest.raises(PartitionError, match=r"cannot be read .*; make it with `partition plan`"):
        read_plan(tmp_path / name, Search(config))


def test_two_stages_on_one_device_are_refused(tmp_path: Path) -> None:
    config = build_config(planner={"strategies": ("pipeline",), "num_stages": (2,)})
    path = written(tmp_path, config, candidate__stages__1__device_index=0)
    with pytest.raises(PartitionError, match="on distinct devices"):
        read_plan(path, Search(config))


def test_a_plan_outlives_changes_that_it_does_not_depend_on(tmp_path: Path, config: ExperimentConfig) -> None:
    path = written(tmp_path, config)
    longer = build_config(training={"minibatch_size": 22, "steps": 9, "seed": 5}, planner={"strategies": ("whole",)})
    assert read_plan(path, Search(longer)).name == compare(config).chosen.name  # type: ignore[union-attr]


def test_accumulation_is_found_although_many_microbatches_fit_no_better() -> None:
    """Each microbatch keeps a loss: 182 to 619 of them fit here, 4,000 do not, and a bisection missed them all."""
    config = build_config(
        model={"in_features": 7, "hidden_features": (9,), "out_features": 3},
        training={"minibatch_size": 4000},
        optimizer={"momentum": 0.9},
    )
    comparison = compare(with_memory(config, peak(build_config(
        model={"in_features": 7, "hidden_features": (9,), "out_features": 3},
        training={"minibatch_size": 4000},
        optimizer={"momentum": 0.9},
        planner={"num_microbatches": (300,)},
    ), "accumulate-300")))  # fmt: skip
    assert comparison.chosen is not None
    assert comparison.chosen.strategy == "accumulate"
    assert comparison.chosen.num_microbatches <= 300


def test_edited_figures_of_a_plan_are_refused(tmp_path: Path, config: ExperimentConfig) -> None:
    with pytest.raises(PartitionError, match=r"candidate\.learning_rate is not what this experiment gives"):
        read_plan(written(tmp_path, config, candidate__learning_rate=77.0), Search(config))


def test_sizes_that_are_not_smaller_are_refused() -> None:
    with pytest.raises(PartitionError, match=r"22 is not smaller than training\.minibatch_size, 22"):
        Search(build_config(planner={"minibatch_sizes": (11, 22)}))


def test_what_was_not_compared_is_not_said_to_be_too_large() -> None:
    assert "No exact way" not in compare(build_config(planner={"strategies": ("pipeline",)})).verdict
    shrink = {"strategies": ("shrink",)}
    assert "was compared" in compare(build_config(planner=shrink)).verdict
