"""The largest curvature in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from partition.config import OptimizerConfig
from partition.record.curvature import CurvatureRecord, ProductCost
from partition.report.curvature import curvature_text

SGD = OptimizerConfig(lr=0.1)


def record(**changes: Any) -> CurvatureRecord:
    product = ProductCost(
        gradient_flop=3, product_flop=8, flop_ratio=8 / 3, predicted_s=0.5, measured_s=0.25, clock="wall",
        predicted_peak_bytes=(1024, 2048), measured_peak_bytes=(1024, None),
    )  # fmt: skip
    values: dict[str, Any] = {
        "schema_version": 1, "eigenvalue": 4.0, "residual": 0.01, "tolerance": 0.01, "is_converged": True,
        "num_products": 7, "most_negative": None, "num_examples": 1000, "num_minibatches": 2, "checkpoint": None,
        "step": 0, "candidate": "whole", "num_stages": 1, "product": product, **changes,
    }  # fmt: skip
    return CurvatureRecord(**values)


def test_converged() -> None:
    assert curvature_text(record(), SGD) == (
        "Hessian of J on 1,000 examples, initial parameters, on whole:\n"
        "largest eigenvalue 4, residual 0.01: converged after 7 products\n"
        "gradient descent without momentum diverges along it above lr = 2/4 = 0.5; optimizer.lr is 0.1\n"
        "a product takes 2.67 x the operations of a gradient, 500 ms a minibatch predicted, 250 ms measured, at most "
        "2.0 KiB on a device"
    )


def test_one_of_each() -> None:
    said = curvature_text(record(num_products=1, num_examples=1), SGD)
    assert "on 1 example, " in said
    assert "converged after 1 product\n" in said


def test_negative_and_cut_short() -> None:
    said = curvature_text(record(eigenvalue=-1.0, most_negative=-3.0, is_converged=False, checkpoint="c", step=9), SGD)
    assert "c (step 9), on whole" in said
    assert "not converged to 0.01 after 7 products; take more with --max-products" in said
    assert "largest magnitude is negative, -3: J curves down there" in said
    assert "diverges" not in said


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (
            OptimizerConfig(lr=0.3, momentum=0.9),
            "\nSGD with momentum 0.9 diverges along it above lr = 2 (1 + 0.9)/4 = 0.95; optimizer.lr is 0.3\n",
        ),
        (
            OptimizerConfig(name="adam", lr=0.3),
            "\ngradient descent without momentum diverges along it above lr = 2/4 = 0.5\n",
        ),
    ],
)
def test_learning_rate(optimizer: OptimizerConfig, words: str) -> None:
    assert words in curvature_text(record(), optimizer)


def test_the_largest_learning_rate_is_where_steps_on_a_quadratic_stop_shrinking() -> None:
    for factor, is_smaller in ((0.99, True), (1.01, False)):
        w = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=factor * 2 * (1 + 0.9) / 4, momentum=0.9)
        for _ in range(2000):
            optimizer.zero_grad()
            (4 / 2 * w.square()).sum().backward()
            optimizer.step()
        assert (abs(w.item()) < 1e-3) == is_smaller
