"""Initial parameters: a generator for every layer of every experiment, and variances that keep signals alive."""

from __future__ import annotations

import math

import pytest
import torch

from partition.graph import ACTIVATION_RECORDS, Layer
from partition.runtime.parameters import LAYERS_PER_SEED, Parameters, initialise


def draw(
    index: int, seed: int, *, activation: str = "relu", size: tuple[int, int] = (40, 30), init: str = "he_normal"
) -> Parameters:
    """The initial parameters of one layer, from buffers that held something else."""
    out_features, in_features = size
    layer = Layer(index=index, in_features=in_features, out_features=out_features, has_bias=True,
                  activation=ACTIVATION_RECORDS[activation], init=init)  # fmt: skip
    weight, bias = torch.full(size, 9.0), torch.full((out_features,), 9.0)
    of = Parameters(weight_OI=weight, grad_weight_OI=weight.clone(), bias_O=bias, grad_bias_O=bias.clone())
    initialise([layer], {index: of}, seed)
    return of


@pytest.mark.parametrize("activation", sorted(ACTIVATION_RECORDS))
def test_variance_is_gain_squared_over_fan_in(activation: str) -> None:
    """He et al. 2015; of 60,000 draws the standard deviation is good to half a percent."""
    weight = draw(0, 0, activation=activation, size=(300, 200)).weight_OI
    expected = ACTIVATION_RECORDS[activation].gain / math.sqrt(200)
    assert weight.std().item() == pytest.approx(expected, rel=0.02)
    assert abs(weight.mean().item()) < 0.02 * expected


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        ("he_uniform", 2 / 200),
        ("lecun_normal", 1 / 200),
        ("lecun_uniform", 1 / 200),
        ("xavier_normal", 2 / 500),
        ("xavier_uniform", 2 / 500),
        ("torch", 1 / 600),
    ],
)
def test_variance_is_that_of_the_name(init: str, variance: float) -> None:
    weight = draw(0, 0, size=(300, 200), init=init).weight_OI
    assert weight.std().item() == pytest.approx(math.sqrt(variance), rel=0.02)
    limit = math.sqrt(3 * variance)
    assert (weight.abs().max().item() <= limit) is (not init.endswith("normal"))


def test_torchs_own_distribution_is_torchs() -> None:
    """Uniform within one over the root of the inputs, biases too."""
    linear, of = torch.nn.Linear(200, 300), draw(0, 0, size=(300, 200), init="torch")
    assert of.bias_O is not None
    for ours, theirs in ((of.weight_OI, linear.weight), (of.bias_O, linear.bias)):
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.05)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)


def test_biases_begin_at_zero() -> None:
    bias = draw(0, 0).bias_O
    assert bias is not None
    assert torch.equal(bias, torch.zeros(40))


@pytest.mark.parametrize(("index", "seed"), [(1, 0), (0, 1), (7, 3)])
def test_another_layer_or_seed_draws_other_numbers(index: int, seed: int) -> None:
    assert not torch.equal(draw(index, seed).weight_OI, draw(0, 0).weight_OI)


@pytest.mark.parametrize("index", [1, LAYERS_PER_SEED - 1])
def test_no_layer_shares_its_generator_with_one_of_the_next_experiment(index: int) -> None:
    """Added up, layer 1 of seed 0 would be layer 0 of seed 1; so seeds lie further apart than networks are deep."""
    assert not torch.equal(draw(index, 0).weight_OI, draw(0, 1).weight_OI)


def test_largest_seed_of_an_experiment_can_be_used() -> None:
    assert torch.isfinite(draw(100_000, 2**40 - 1).weight_OI).all()


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    first, state = draw(0, 0).weight_OI, torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(draw(0, 0).weight_OI, first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
