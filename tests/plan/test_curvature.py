"""Layouts for products with the Hessian: those of training, other prices."""

from __future__ import annotations

import pytest

from partition.config import ExperimentConfig
from partition.errors import PartitionError
from partition.plan import Search
from partition.plan.curvature import STRATEGIES, CurvatureSearch
from partition.plan.shape import Shape, segments_of
from tests.runtime.conftest import build_config


def config(**planner: object) -> ExperimentConfig:
    return build_config(optimizer={"name": "adam", "lr": 0.1}, planner=planner)


def test_candidates_are_exact_and_have_no_optimizer() -> None:
    search = CurvatureSearch(config(costs="absent.json"))
    candidates = search.candidates()
    assert {one.strategy for one in candidates} == set(STRATEGIES)
    assert all(one.exact_gradient for one in candidates)
    whole = search.whole()
    assert whole.stages[0].memory.optimizer_bytes == whole.stages[0].memory.parameters_bytes, "the direction alone"


def test_a_product_takes_more_bytes_and_seconds_than_a_step_of_plain_descent() -> None:
    plain = build_config(optimizer={"name": "sgd", "lr": 0.1})
    training, product = Search(plain).whole().predicted, CurvatureSearch(plain).whole().predicted
    assert training is not None
    assert product is not None
    assert 1.5 < product.step_s / training.step_s < 3.5
    assert 1.5 < product.peak_bytes[0] / training.peak_bytes[0] < 2.5


def test_bfloat16_is_refused() -> None:
    with pytest.raises(PartitionError, match="set it to float32 or float64"):
        CurvatureSearch(build_config(number_format="bfloat16"))


@pytest.mark.parametrize(("asked", "kept"), [(("sharded", "shrink"), STRATEGIES), (("shrink", "whole"), ("whole",))])
def test_strategies_without_a_program_are_left_out(asked: tuple[str, ...], kept: tuple[str, ...]) -> None:
    found = {one.strategy for one in CurvatureSearch(config(strategies=asked)).candidates()}
    assert found == set(kept)


def test_the_split_of_a_plan_is_priced_anew() -> None:
    of = config(strategies=("pipeline", "sharded"))
    trained = {one.name: one for one in Search(of).candidates()}
    found = CurvatureSearch(of).priced_as(trained["pipeline-3x4-1f1b"])
    layers = [(stage.first_layer, stage.last_layer) for stage in found.stages]
    assert layers == [(stage.first_layer, stage.last_layer) for stage in trained["pipeline-3x4-1f1b"].stages]
    assert found.predicted != trained["pipeline-3x4-1f1b"].predicted
    with pytest.raises(PartitionError, match="sharded-2: a sharded model is trained by torch's autograd"):
        CurvatureSearch(of).priced_as(trained["sharded-2"])


def test_products_keep_what_training_computes_again() -> None:
    of = config(strategies=("pipeline",))
    search = Search(of)
    plain = next(one for one in search.candidates() if one.name == "pipeline-3x4-1f1b")
    again = search.price(Shape.of(plain), [segment.recomputing_all() for segment in segments_of(plain.stages)])
    assert again.recompute
    assert CurvatureSearch(of).priced_as(again) == CurvatureSearch(of).priced_as(plain)
