"""Fully sharded data parallel, by torch's own `fully_shard` on the plain torch model: the way out that most people use.

Every rank holds a part of every parameter, gathers a layer when it needs it, and computes on its share of the
minibatch by automatic differentiation. The gradient is that of the whole minibatch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from partition.config import OptimizerConfig
from partition.data.rows import Examples
from partition.ops.losses import summed_loss
from partition.plan import Candidate, Search
from partition.plan.microbatches import microbatch_sizes
from partition.runtime.cuda import prepare
from partition.runtime.fault import INPUTS, Findings, describe_fault
from partition.runtime.feed import MinibatchFeed, example_weight
from partition.runtime.module import build_module
from partition.runtime.plain import unit_modules
from partition.runtime.processes import ProcessWorld
from partition.runtime.update import clip_scale
from partition.runtime.workers import StepResult
from partition.runtime.world import World, share_all


class ShardedModel:
    """The part of this process in a model that all processes share out between them."""

    has_simulated_clock = False

    def __init__(self, search: Search, candidate: Candidate, world: World | None) -> None:
        assert isinstance(world, ProcessWorld), "`joined` refuses it in one process"
        self.search = search
        self.candidate = candidate
        self.world: World = world
        self.rank = world.process.rank
        self.device = world.torch_device(search.cluster.devices[candidate.stages[self.rank].device_index])
        prepare(self.device)
        config = search.config
        dtype: torch.dtype = getattr(torch, config.precision.compute)
        self.model = build_module(config.model, config.training.seed, dtype=dtype).to_torch()
        mesh = world.mesh["replica"]
        self._units = unit_modules(self.model, search.network)
        for module in self._units:
            fully_shard(module, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        self.optimizer = _optimizer(config.optimizer, candidate.learning_rate, list(self.model.parameters()))
        self._ended_s: float | None = None

    def train(
        self,
        x: Examples,
        y: Examples,
        examples: NDArray[np.int64],
        *,
        learning_rate: float | None = None,
        stop_signal: int = 0,
        step: int | None = None,
        upcoming: NDArray[np.int64] | None = None,
    ) -> StepResult:
        """One optimizer step on the given examples; this rank computes on its share.

        What dropout drops comes from torch's own generator, whatever the number of the step, and rows are read when
        they are needed.
        """
        del step, upcoming
        self.model.train()
        start_s = time.perf_counter() if self._ended_s is None else self._ended_s
        if learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
        shares = microbatch_sizes(len(examples), self.candidate.num_replicas)
        mine = np.split(examples, np.cumsum(shares)[:-1])[self.rank]
        weight = example_weight(self.search.network.loss, y, examples)
        loss = self._backward(self._rows("x", x, mine), self._rows("targets", y, mine), weight)
        penalty = self._add_penalty()
        loss_sum, grad_square, weight_square, signal = self._totals(loss, penalty, stop_signal)
        norm, limit = math.sqrt(grad_square), self.search.config.optimizer.max_grad_norm
        if limit is not None:
            for gradient in self._shards(of_gradients=True):
                gradient.mul_(clip_scale(norm, limit))
        if math.isfinite(norm):  # else the run ends, and what went wrong is looked for in layers and gradients
            self.optimizer.step()
            self.optimizer.zero_grad()
        self._ended_s = time.perf_counter()
        return StepResult(
            loss=loss_sum,
            penalty=self.search.network.l2_penalty / 2 * weight_square,
            grad_norm=norm,
            step_s=self._ended_s - start_s,
            stop_signal=int(signal),
        )

    def _rows(self, name: str, rows_of: Examples, examples: NDArray[np.int64]) -> Tensor:
        """The rows of the inputs ("x") or the targets, on this rank's device."""
        is_index = name == "targets" and self.search.network.loss.has_class_targets
        dtype: torch.dtype = getattr(torch, self.search.config.precision.compute)
        rows = torch.empty((len(examples), *rows_of.shape[1:]), dtype=torch.int64 if is_index else dtype)
        MinibatchFeed(rows_of, rows_of, examples, (len(examples),))(name, 0, rows)
        return rows.to(self.device)

    def _backward(self, inputs: Tensor, targets: Tensor, weight: float) -> float:
        """Leave the gradient of the minibatch's mean loss in the parameters; this rank's part of that loss."""
        loss = summed_loss(self.search.network.loss, self.model(inputs), targets) * weight
        # Gradients are averaged over ranks where they should be summed.
        (loss * self.candidate.num_replicas).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    @torch.no_grad()
    def _add_penalty(self) -> float:
        """Add lambda W to the gradient of every weight; the sum of squares of this rank's part of the weights."""
        l2_penalty, square = self.search.network.l2_penalty, 0.0
        if l2_penalty:
            for parameter, gradient in zip(self._shards(), self._shards(of_gradients=True), strict=True):
                if parameter.dim() == 2:
                    gradient.add_(parameter, alpha=l2_penalty)
                    square += float(parameter.double().square().sum())
        return square

    def _shards(self, *, of_gradients: bool = False) -> list[Tensor]:
        """The part that this rank has of every parameter, or of its gradient."""
        found = []
        for parameter in self.model.parameters():
            whole = parameter.grad if of_gradients else parameter.detach()
            assert isinstance(whole, DTensor), "every parameter is sharded, and every one has a gradient"
            found.append(whole.to_local())
        return found

    @torch.no_grad()
    def _totals(self, loss: float, weight_square: float, stop_signal: int) -> tuple[float, float, float, float]:
        """Over all ranks: the loss, the squares of gradients and weights, the signal that asks to stop."""
        square = sum(float(gradient.double().square().sum()) for gradient in self._shards(of_gradients=True))
        numbers = np.array([loss, square, weight_square, stop_signal], dtype=np.float64)
        every = share_all(self.world, {self.rank: numbers})
        sums = [sum(of_rank[index] for of_rank in every) for index in range(3)]
        return float(sums[0]), float(sums[1]), float(sums[2]), max(of_rank[3] for of_rank in every)

    @torch.no_grad()
    def find_fault(self, x: Examples, examples: NDArray[np.int64]) -> str:
        """What first was not finite in the step just made on these examples; all ranks look for it together."""
        findings = Findings()
        for layer, unit in enumerate(self._units):
            gradients = (parameter.grad for parameter in unit.parameters())
            findings.gradients(layer, (one.to_local() for one in gradients if isinstance(one, DTensor)))
        shares = microbatch_sizes(len(examples), self.candidate.num_replicas)
        outputs = self._rows("x", x, np.split(examples, np.cumsum(shares)[:-1])[self.rank])
        findings.output(INPUTS, outputs)
        hooks, layer = [], INPUTS
        for module in self.model:
            layer += module in self._units
            hooks.append(module.register_forward_hook(_examining(findings, layer)))
        self.model.eval()
        self.model(outputs)
        for hook in hooks:
            hook.remove()
        return describe_fault(self.world, {self.rank: findings}, self.candidate, self.search.network.layers)

    @torch.no_grad()
    def predict(self, x: Examples, examples: NDArray[np.int64], replica: int) -> Iterator[NDArray[Any]]:
        """The logits of this rank's rows; all ranks call it together."""
        del replica
        self.model.eval()
        size = self.candidate.microbatch_size
        mine = np.array([-(-len(examples) // size)], dtype=np.float64)
        # A rank with fewer portions takes part in gathering the parameters for the others' last ones.
        most = int(max(of_rank[0] for of_rank in share_all(self.world, {self.rank: mine})))
        for index in range(most):
            part = examples[index * size : (index + 1) * size]
            logits = self.model(self._rows("x", x, part)).cpu().numpy()
            if len(part):
                yield logits

    def gathered_layers(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """The state of every layer as a checkpoint has it, on the first rank; all ranks go through it together."""
        for index, module in enumerate(self._units):
            gathered = {name: _whole(tensor) for name, tensor in self._state(module).items()}
            if self.rank == 0:
                yield index, gathered

    @torch.no_grad()
    def restore(self, read: Callable[[int], Mapping[str, Tensor]]) -> None:
        """Take this rank's part of every layer of a checkpoint, and of the optimizer's state."""
        for index, module in enumerate(self._units):
            saved = read(index)
            for name, parameter in module.named_parameters():
                assert isinstance(parameter, DTensor), "every parameter is sharded"
                parameter.copy_(_shared_out(saved[name], parameter))
                prefix = f"{name}."
                self.optimizer.state[parameter] = {
                    key.removeprefix(prefix): _shared_out(tensor, parameter) if tensor.dim() else tensor
                    for key, tensor in saved.items()
                    if key.startswith(prefix)
                }

    def _state(self, module: nn.Module) -> dict[str, Tensor]:
        """Parameters and what the optimizer keeps of each, by name."""
        found: dict[str, Tensor] = {}
        for name, parameter in module.named_parameters():
            found[name] = parameter.detach()
            kept = self.optimizer.state.get(parameter, {})
            found |= {f"{name}.{key}": value for key, value in kept.items() if isinstance(value, Tensor)}
        return found

    def peak_bytes(self) -> dict[int, int | None]:
        """The allocator's count on a GPU; on the host nothing counts what torch allocates."""
        if self.device.type == "cuda":
            return {self.rank: torch.cuda.max_memory_allocated(self.device)}
        return {self.rank: None}

    def parameters(self) -> Sequence[Tensor]:
        """All parameters, gathered from all ranks, which call it together."""
        wholes = [parameter.detach() for parameter in self.model.parameters()]
        return [whole.full_tensor() for whole in wholes if isinstance(whole, DTensor)]


def _examining(findings: Findings, layer: int) -> Callable[[nn.Module, object, Tensor], None]:
    return lambda _, __, output: findings.output(layer, output)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _shared_out(tensor: Tensor, like: DTensor) -> DTensor:
    """A tensor that every rank has, shared out as another is."""
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _optimizer(config: OptimizerConfig, learning_rate: float, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate, momentum=config.momentum)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    options = {"betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
    optimizer: torch.optim.Optimizer = kinds[config.name](parameters, lr=learning_rate, **options)
    return optimizer
