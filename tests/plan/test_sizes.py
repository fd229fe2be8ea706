"""The sizes that a search tries, for costs of any number of examples and of one."""

from __future__ import annotations

from typing import Any

from partition.config import PlannerConfig
from partition.plan.sizes import AnySizes, WholeMicrobatches, powers_of_two


def anything(size: int = 22, **planner: Any) -> AnySizes:
    return AnySizes(size, PlannerConfig.model_validate(planner))


def whole(size: int = 96, rows: int = 8, **planner: Any) -> WholeMicrobatches:
    return WholeMicrobatches(size, PlannerConfig.model_validate(planner), rows)


def fits_five(microbatch_size: int, num_microbatches: int) -> bool:
    del num_microbatches
    return microbatch_size <= 5


def test_powers_of_two_end_with_the_limit() -> None:
    assert powers_of_two(9) == [1, 2, 4, 8]
    assert powers_of_two(10**6)[-1] == 64


def test_any_size_halves_and_takes_what_fits() -> None:
    assert anything().whole() == [(22, 1)]
    assert anything().smaller(fits_five) == [(11, 1), (5, 1), (2, 1)]
    assert anything().accumulations(fits_five) == [(22, count) for count in (2, 4, 5, 8, 16)]
    assert anything().of_replica(2, fits_five) == [1, 3]
    assert anything().replicas(6) == [2, 4, 6]
    assert anything().of_pipeline(1, 4) == [4, 8, 16]
    assert anything(3).of_pipeline(1, 4) == [2]


def test_any_size_takes_what_is_asked() -> None:
    asked = anything(num_microbatches=(1, 3, 40), minibatch_sizes=(7,))
    assert asked.smaller(fits_five) == [(7, 1)]
    assert asked.accumulations(fits_five) == [(22, 3), (22, 40)]
    assert asked.of_replica(2, fits_five) == [1, 3]
    assert asked.of_pipeline(2, 2) == [1, 3, 40]


def test_a_microbatch_has_an_example() -> None:
    assert anything().refusal([[6, 5, 5]]) == ""
    assert (
        anything()
        .refusal([[1, 1, 0], [1, 0, 0]])
        .startswith(
            "3 microbatches in each of 2 replicas, but the minibatch has 3 examples; take num_microbatches <= 1"
        )
    )


def test_of_one_size_only_whole_microbatches_are_tried() -> None:
    """96 examples are 12 microbatches of 8."""
    assert whole().whole() == []
    assert whole(8).whole() == [(8, 1)]
    assert whole().smaller(fits_five) == [(48, 6), (24, 3), (8, 1)]
    assert whole().accumulations(fits_five) == [(96, 12)]
    assert whole(8).accumulations(fits_five) == []
    assert whole().replicas(5) == [2, 3, 4]
    assert whole().replicas(100) == [2, 3, 4, 6, 12]
    assert whole().of_replica(3, fits_five) == [4]
    assert whole().of_pipeline(2, 3) == [6]


def test_of_one_size_what_is_asked_is_tried_and_refused_in_words() -> None:
    asked = whole(num_microbatches=(1, 6), minibatch_sizes=(40,))
    assert asked.smaller(fits_five) == [(40, 5)]
    assert asked.accumulations(fits_five) == [(96, 6)]
    assert asked.of_replica(2, fits_five) == [1, 6]
    assert asked.of_pipeline(1, 2) == [1, 6]
    assert whole().refusal([[8] * 12]) == ""
    expected = "microbatches of 16 examples, but there are costs of 8 only; take num_microbatches = 12"
    assert whole().refusal([[16] * 6]) == expected
    assert whole().refusal([[12], [12]]).endswith("take fewer replicas")
