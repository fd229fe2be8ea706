"""The graphs compute what they say: run edge by edge, they give the loss, its gradients and a Hessian's product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from partition.config.schema import ModelConfig
from partition.costs.optimizer import OptimizerRecord
from partition.costs.stage import NetworkStageCost
from partition.graph import Network, build_network
from partition.graph.computational import ComputationalGraph, EdgeKind, GraphKind, Role, build_graph
from partition.graph.layers import Layer
from partition.runtime import build_module
from tests.graph.computational.by_graph import PHI, run

SEGMENTS = [((0, 3),), ((0, 1), (2, 3)), ((0, 0), (1, 1), (2, 2), (3, 3))]
PENALTY = 0.1


def small(**changes: Any) -> Network:
    keys: dict[str, Any] = {"in_features": 6, "hidden_features": (5, 4, 3), "out_features": 4, "activation": "gelu"}
    return build_network(ModelConfig(**{**keys, "l2_penalty": PENALTY, **changes}))


def tensors(network: Network, letter: str = "") -> dict[str, Tensor]:
    found = {}
    for layer in network.layers:
        shape = (layer.out_features, layer.in_features)
        found[f"{letter}W{layer.index}"] = torch.randn(shape, dtype=torch.float64)
        found[f"{letter}b{layer.index}"] = torch.randn(layer.out_features, dtype=torch.float64)
    return found


def data() -> dict[str, Tensor]:
    return {"x": torch.randn(7, 6, dtype=torch.float64), "y": torch.randint(4, (7,))}


def objective(network: Network, parameters: tuple[Tensor, ...], given: dict[str, Tensor]) -> Tensor:
    """J by torch alone; weight and bias in turn."""
    h = given["x"]
    for index, layer in enumerate(network.layers):
        z = torch.nn.functional.linear(h, parameters[2 * index], parameters[2 * index + 1])
        h = z if layer.activation.is_identity else PHI[layer.activation.name](z)
    squares = sum(weight.square().sum() for weight in parameters[::2])
    return torch.nn.functional.cross_entropy(h, given["y"]) + network.l2_penalty / 2 * squares


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("activation", ["gelu", "identity"])
@pytest.mark.parametrize("penalty", [0.0, PENALTY])
def test_the_graphs_compute_loss_gradient_and_hessian_product(
    segments: tuple[tuple[int, int], ...], activation: str, penalty: float
) -> None:
    torch.manual_seed(0)
    network = small(activation=activation, l2_penalty=penalty)
    weights, given, direction = tensors(network), data(), tensors(network, "v")
    parameters = tuple(weights.values())

    def function(*of: Tensor) -> Tensor:
        return objective(network, of, given)

    forward = run(build_graph(network, GraphKind.FORWARD, segments), {**weights, **given}, penalty)
    assert torch.allclose(forward["J"], function(*parameters))

    one = torch.ones((), dtype=torch.float64)
    backward = run(build_graph(network, GraphKind.BACKWARD, segments), {**forward, "∂J": one}, penalty)
    expected = torch.autograd.functional.jacobian(function, parameters)
    for name, gradient in zip(weights, expected, strict=True):
        assert torch.allclose(backward[f"∂{name}"], gradient)

    second = run(build_graph(network, GraphKind.SECOND_ORDER, segments), {**backward, **direction}, penalty)
    _, product = torch.autograd.functional.hvp(function, parameters, tuple(direction.values()))
    for name, of_v in zip(weights, product, strict=True):
        assert torch.allclose(second[f"H{name}"], of_v, atol=1e-12)


BLOCKS: dict[str, tuple[dict[str, Any], ...]] = {
    "norm first": ({"norm": "layer_norm"}, {"linear": 5}, {"norm": "rms_norm"}),
    "residual": ({"residual": {"hidden": 4}}, {"residual": {"norm": "layer_norm", "hidden": 7}},
                 {"norm": "layer_norm"}),
    "swiglu": ({"linear": 5}, {"residual": {"norm": "rms_norm", "swiglu": 4}}, {"residual": {"swiglu": 3}}),
    "swiglu first": ({"residual": {"norm": "layer_norm", "swiglu": 4}}, {"linear": 5, "activation": "identity"},
                     {"linear": 6}),
}  # fmt: skip


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("case", BLOCKS)
def test_the_graphs_of_blocks_compute_loss_gradient_and_hessian_product(
    segments: tuple[tuple[int, int], ...], case: str
) -> None:
    torch.manual_seed(0)
    model = ModelConfig(in_features=6, out_features=4, activation="gelu", l2_penalty=PENALTY, blocks=BLOCKS[case])
    network, given = build_network(model), data()
    module = build_module(model, dtype=torch.float64).to_torch()
    names, weights, direction = [], {}, {}
    parts = [part for unit in network.layers for part in unit.weighted]
    for part in parts:
        letters = ("W" if isinstance(part, Layer) else "w", "b")[: 1 + part.has_bias]
        names += [f"{letter}{part.index}" for letter in letters]
    for name, parameter in zip(names, module.parameters(), strict=True):
        with torch.no_grad():
            parameter += 0.3 * torch.randn_like(parameter)
        weights[name], direction[f"v{name}"] = parameter.detach(), torch.randn_like(parameter)
    keys = [name for name, _ in module.named_parameters()]

    def function(*of: Tensor) -> Tensor:
        o = torch.func.functional_call(module, dict(zip(keys, of, strict=True)), (given["x"],))
        squares = sum(weight.square().sum() for weight in of if weight.dim() == 2)
        return torch.nn.functional.cross_entropy(o, given["y"]) + PENALTY / 2 * squares

    parameters = tuple(weights.values())
    forward = run(build_graph(network, GraphKind.FORWARD, segments), {**weights, **given}, PENALTY)
    assert torch.allclose(forward["J"], function(*parameters))
    one = torch.ones((), dtype=torch.float64)
    backward = run(build_graph(network, GraphKind.BACKWARD, segments), {**forward, "∂J": one}, PENALTY)
    for name, gradient in zip(weights, torch.autograd.functional.jacobian(function, parameters), strict=True):
        assert torch.allclose(backward[f"∂{name}"], gradient), name
    second = run(build_graph(network, GraphKind.SECOND_ORDER, segments), {**backward, **direction}, PENALTY)
    _, product = torch.autograd.functional.hvp(function, parameters, tuple(direction.values()))
    for name, of_v in zip(weights, product, strict=True):
        assert torch.allclose(second[f"H{name}"], of_v, atol=1e-12), name


def test_a_graph_without_an_edge_does_not_run() -> None:
    """The interpreter finds out what is missing."""
    network = small()
    graph = build_graph(network, GraphKind.FORWARD)
    with pytest.raises(KeyError):
        run(graph, {**tensors(network), "y": data()["y"]}, PENALTY)


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh", "identity"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_kept_and_carried_bytes_are_those_of_the_costs(
    segments: tuple[tuple[int, int], ...], activation: str, loss: str
) -> None:
    """Between F and B: what the forward leaves, with what was received, without what is sent and given back."""
    network = small(activation=activation, loss=loss)
    graph = build_graph(network, GraphKind.BACKWARD, segments)
    optimizer = OptimizerRecord(state_copies=0, state_bytes_per_tensor=0, workspace_bytes=0, flop_per_element=2)
    for stage, (first, last) in enumerate(segments):
        cost = NetworkStageCost(network, optimizer, 4, first, last).microbatch(9)
        left = cost.receive_forward.memory.net_bytes + cost.forward.memory.net_bytes
        left -= 0 if cost.is_output_kept else cost.output_bytes
        kept = [node.buffer.num_bytes(9, 4) for node in graph.kept if node.stage == stage and node.buffer]
        assert sum(kept) == left
        carried = [carry for carry in graph.carries if carry.source.endswith(f"@{stage}")]
        variables = {node.id: node for node in graph.variables}
        buffers = [variables[one.source].buffer for one in carried]
        assert sum(one.num_bytes(9, 4) for one in buffers if one) == cost.grad_input_bytes


def shapes(graph: ComputationalGraph) -> dict[str, str]:
    return {node.id: node.shape_text for node in graph.variables}


def test_a_gradient_has_the_shape_of_its_variable() -> None:
    network = small()
    forward, backward = (shapes(build_graph(network, kind)) for kind in (GraphKind.FORWARD, GraphKind.BACKWARD))
    second = shapes(build_graph(network, GraphKind.SECOND_ORDER))
    of_gradients = {name[1:]: shape for name, shape in backward.items() if name.startswith("∂")}
    assert {name: forward[name] for name in of_gradients} == of_gradients
    of_products = {name[1:]: shape for name, shape in second.items() if name[0] in "uvH"}
    assert {name: forward[name] for name in of_products} == of_products
    assert (forward["W0"], forward["b0"], forward["z0"], forward["J"]) == ("5×6", "5", "B×5", "")


def test_the_edges_of_a_small_graph() -> None:
    graph = build_graph(
        small(hidden_features=(5,), activation="relu", bias=False), GraphKind.BACKWARD, ((0, 0), (1, 1))
    )
    edges = {(edge.source, edge.target): edge.kind for edge in graph.edges}
    assert edges["h0", "relu gradient 0"] is EdgeKind.KEPT
    assert edges["h0@1", "weight gradient 1"] is EdgeKind.KEPT
    assert edges["∂h0@1", "∂h0"] is EdgeKind.CARRIED
    assert edges["∂z0", "weight gradient 0"] is EdgeKind.READ
    assert edges["W1", "input gradient 1"] is EdgeKind.READ
    assert edges["weight gradient 0", "∂W0"] is EdgeKind.WRITE
    assert not any(node.id.startswith(("∂b", "∂x")) for node in graph.variables)
    assert {node.id for node in graph.kept} == {"x", "h0", "h0@1", "∂o"}


def test_without_penalty_there_is_none() -> None:
    network = small(l2_penalty=0.0)
    for kind in GraphKind:
        graph = build_graph(network, kind)
        assert not {"s", "∂s", "penalty"} & {node.id for node in graph.nodes}
    graph = build_graph(network, GraphKind.SECOND_ORDER)
    double = next(one for one in graph.operators if one.id == "backward of the affine gradient 0")
    assert double.writes == ("uz0",)


def test_every_node_is_joined_and_named_once() -> None:
    for kind in GraphKind:
        graph = build_graph(small(), kind, ((0, 1), (2, 3)))
        names = [node.id for node in graph.nodes]
        ends = {end for edge in graph.edges for end in (edge.source, edge.target)}
        assert len(set(names)) == len(names)
        assert ends == set(names)


def test_relu_is_kept_as_its_output_and_gelu_as_its_input() -> None:
    def kept(activation: str) -> set[str]:
        return {node.id for node in build_graph(small(activation=activation), GraphKind.FORWARD).kept}

    assert kept("relu") == {"x", "h0", "h1", "h2", "∂o"}
    assert kept("gelu") == {"x", "z0", "z1", "z2", "∂o"}
    roles = {node.id: node.role for node in build_graph(small(), GraphKind.FORWARD).variables}
    assert (roles["W0"], roles["z0"], roles["x"], roles["J"]) == (Role.PARAMETER, Role.VALUE, Role.DATA, Role.SCALAR)
