"""A plan as plain PyTorch lines, for people who keep their own training loop.

The lines expect `model`, an nn.Sequential of the layers (a Linear and its activation each) or of the blocks, `loss_fn`,
which is the mean over examples, and a minibatch `x`, `y`; with several devices also that torchrun started a process for
each and joined them.
"""

from __future__ import annotations

from partition.config import ExperimentConfig
from partition.errors import PartitionError
from partition.plan import Candidate

_PIPELINES = {
    "gpipe": "ScheduleGPipe",
    "1f1b": "Schedule1F1B",
    "interleaved_1f1b": "ScheduleInterleaved1F1B",
    "zb_h1": "ScheduleInterleavedZeroBubble",
    "zbv": "ScheduleZBVZeroBubble",
}


def pytorch_lines(config: ExperimentConfig, candidate: Candidate) -> str:
    """The lines that do in torch what a candidate does; raises PartitionError for one that cannot be laid out."""
    if not candidate.stages:
        raise PartitionError(f"{candidate.name} cannot be laid out: {candidate.reason}")
    ways = {"sharded": _sharded, "data_parallel": _data_parallel, "pipeline": _pipeline, "hybrid": _pipeline}
    lines = [
        f"# {candidate.name}: {candidate.minibatch_size} examples a step, learning rate {candidate.learning_rate:.4g}"
    ]
    if candidate.learning_rate_rule != "given":
        lines[0] += f" ({candidate.learning_rate_rule} in the minibatch)"
    if config.model.class_weights is not None:
        lines.append("# class weights: a part counts its share of the summed weights, not len(x_part) / len(x)")
    return "\n".join([*lines, *ways.get(candidate.strategy, _alone)(config, candidate)]) + "\n"


def _alone(config: ExperimentConfig, candidate: Candidate) -> list[str]:
    """One device: the minibatch in portions, layers in spans that are computed again."""
    return [
        "import torch",
        *_checkpointed(config, candidate),
        "",
        _optimizer(config, candidate, "model"),
        "",
        *_accumulation(candidate, "x, y", "len(x)"),
        *_penalty(config, "model"),
        *_clip(config, "model"),
        "optimizer.step()",
        "optimizer.zero_grad()",
    ]


def _accumulation(candidate: Candidate, examples: str, count: str) -> list[str]:
    """The portions of a minibatch, each weighted by its share of the examples."""
    x, y = examples.split(", ")
    if candidate.num_microbatches == 1 and count == f"len({x})":
        return [f"loss_fn(forward({x}), {y}).backward()"]
    num = candidate.num_microbatches
    return [
        f"for x_part, y_part in zip({x}.tensor_split({num}), {y}.tensor_split({num})):",
        f"    loss = loss_fn(forward(x_part), y_part) * (len(x_part) / {count})",
        "    loss.backward()  # gradients add up",
    ]


def _checkpointed(config: ExperimentConfig, candidate: Candidate) -> list[str]:
    """The function `forward`, of the model or of its checkpointed spans."""
    spans = candidate.recompute
    if not spans:
        return ["", "forward = model"]
    place = _places(config, candidate)
    lines = ["from torch.utils.checkpoint import checkpoint", "", "", "def forward(x):"]
    done = 0
    for first, last in spans:
        if place[first] > done:
            lines.append(f"    x = model[{done}:{place[first]}](x)")
        done = place[last + 1]
        lines.append(f"    x = checkpoint(model[{place[first]}:{done}], x, use_reentrant=False)")
    if done < place[-1]:
        lines.append(f"    x = model[{done}:](x)")
    return [*lines, "    return x", ""]


def _places(config: ExperimentConfig, candidate: Candidate) -> list[int]:
    """Where each layer, or block, begins among the modules of the Sequential, and where the last one ends."""
    num_layers = 1 + max(stage.last_layer for stage in candidate.stages)
    step = 2 if config.model.blocks is None and config.model.activation != "identity" else 1
    return [*range(0, step * num_layers, step), step * (num_layers - 1) + 1]


def _optimizer(config: ExperimentConfig, candidate: Candidate, of: str) -> str:
    """The optimizer of the experiment, at the candidate's learning rate."""
    section, lr = config.optimizer, f"lr={candidate.learning_rate:.6g}"
    if section.name == "sgd":
        momentum = f", momentum={section.momentum:g}" if section.momentum else ""
        return f"optimizer = torch.optim.SGD({of}.parameters(), {lr}{momentum})"
    decay = f", weight_decay={section.weight_decay:g}" if section.name == "adamw" else ""
    name = "AdamW" if section.name == "adamw" else "Adam"
    return f"optimizer = torch.optim.{name}({of}.parameters(), {lr}, betas={section.betas}, eps={section.eps:g}{decay})"


def _penalty(config: ExperimentConfig, of: str) -> list[str]:
    """The gradient of the L2 penalty, once a step, after the portions."""
    if not config.model.l2_penalty:
        return []
    return [
        f"for weight in (one for one in {of}.parameters() if one.dim() == 2):  # the penalty, once a step",
        f"    weight.grad.add_(weight.detach(), alpha={config.model.l2_penalty:g})",
    ]


def _clip(config: ExperimentConfig, of: str, group: str = "") -> list[str]:
    """The limit of the gradients' norm, over all stages."""
    limit = config.optimizer.max_grad_norm
    if limit is None:
        return []
    if not group:
        return [f"torch.nn.utils.clip_grad_norm_({of}.parameters(), {limit:g})"]
    return [
        f"square = sum(one.grad.square().sum() for one in {of}.parameters())",
        f"dist.all_reduce(square, group={group})  # the norm is that of all stages together",
        f"torch.nn.utils.clip_grads_with_norm_({of}.parameters(), {limit:g}, square.sqrt())",
    ]


def _start() -> list[str]:
    return ["import torch", "import torch.distributed as dist"]


def _data_parallel(config: ExperimentConfig, candidate: Candidate) -> list[str]:
    """Replicas: each takes its part, gradients are summed."""
    num = candidate.num_replicas
    return [
        f"# torchrun --nproc-per-node {num}",
        *_start(),
        *_checkpointed(config, candidate),
        "",
        "rank = dist.get_rank()",
        _optimizer(config, candidate, "model"),
        "",
        f"x_own, y_own = x.tensor_split({num})[rank], y.tensor_split({num})[rank]",
        *_accumulation(candidate, "x_own, y_own", "len(x)"),
        "for parameter in model.parameters():",
        "    dist.all_reduce(parameter.grad)  # a sum: the parts are weighted already",
        *_penalty(config, "model"),
        *_clip(config, "model"),
        "optimizer.step()",
        "optimizer.zero_grad()",
    ]


def _sharded(config: ExperimentConfig, candidate: Candidate) -> list[str]:
    """Torch's fully_shard, layer by layer."""
    num = candidate.num_replicas
    return [
        f"# torchrun --nproc-per-node {num}",
        *_start(),
        "from torch.distributed.device_mesh import init_device_mesh",
        "from torch.distributed.fsdp import fully_shard",
        "",
        "rank, device_type = dist.get_rank(), next(model.parameters()).device.type",
        f"mesh = init_device_mesh(device_type, ({num},))",
        "for module in model:",
        "    if list(module.parameters()):",
        "        fully_shard(module, mesh=mesh)",
        "fully_shard(model, mesh=mesh)",
        _optimizer(config, candidate, "model"),
        "",
        f"x_own, y_own = x.tensor_split({num})[rank], y.tensor_split({num})[rank]",
        f"loss = loss_fn(model(x_own), y_own) * (len(x_own) / len(x)) * {num}  # fully_shard takes the mean over ranks",
        "loss.backward()",
        *_penalty(config, "model"),
        *_clip(config, "model"),
        "optimizer.step()",
        "optimizer.zero_grad()",
    ]


def _pipeline(config: ExperimentConfig, candidate: Candidate) -> list[str]:
    """Stages of torch.distributed.pipelining, cut where the plan cuts; replicas sum their gradients."""
    schedule = _PIPELINES.get(candidate.schedule, "Schedule1F1B")
    note = [] if candidate.schedule in _PIPELINES else [f"# torch has no {candidate.schedule}: 1F1B takes its place"]
    per_rank = candidate.num_stages // candidate.ranks_per_replica
    of = "stages[0]" if schedule in ("ScheduleGPipe", "Schedule1F1B") else "stages"
    num = candidate.num_replicas
    return [
        f"# torchrun --nproc-per-node {candidate.num_devices}",
        *note,
        *_uneven(candidate),
        *_start(),
        "from torch.distributed.device_mesh import init_device_mesh",
        f"from torch.distributed.pipelining import PipelineStage, {schedule}",
        "",
        f"cuts = {_cuts(config, candidate)}  # of the modules of the Sequential",
        "device = next(model.parameters()).device",
        f"mesh = init_device_mesh(device.type, ({candidate.num_replicas}, {candidate.ranks_per_replica}), "
        'mesh_dim_names=("replica", "stage"))',
        'replica, rank = mesh.get_local_rank("replica"), mesh.get_local_rank("stage")',
        f"own = {_own_stages(candidate, per_rank)}[rank]",
        "modules = torch.nn.ModuleList([model[cuts[stage] : cuts[stage + 1]] for stage in own])",
        "stages = [",
        f'    PipelineStage(module, stage, {candidate.num_stages}, device, group=mesh["stage"].get_group())',
        "    for module, stage in zip(modules, own)",
        "]",
        f"schedule = {schedule}({of}, {candidate.num_microbatches}, loss_fn=loss_fn)",
        _optimizer(config, candidate, "modules"),
        "",
        f"x_own, y_own = x.tensor_split({num})[replica], y.tensor_split({num})[replica]",
        f'arguments = {{"target": y_own}} if {candidate.num_stages - 1} in own else {{}}',
        "schedule.step(*([x_own] if 0 in own else []), **arguments)",
        *_replica_sums(candidate),
        *_penalty(config, "modules"),
        *_clip(config, "modules", 'mesh["stage"].get_group()'),
        "optimizer.step()",
        "optimizer.zero_grad()",
    ]


def _uneven(candidate: Candidate) -> list[str]:
    """Torch's pipelines send buffers of one size."""
    pieces = candidate.num_replicas * candidate.num_microbatches
    if candidate.minibatch_size % pieces == 0:
        return []
    return [
        f"# torch needs equal microbatches: take a minibatch of {-(-candidate.minibatch_size // pieces) * pieces}, "
        f"a multiple of {pieces}"
    ]


def _cuts(config: ExperimentConfig, candidate: Candidate) -> list[int]:
    place = _places(config, candidate)
    first = [stage.first_layer for stage in candidate.stages if stage.replica_index == 0]
    return [*(place[layer] for layer in sorted(first)), place[-1]]


def _own_stages(candidate: Candidate, per_rank: int) -> list[list[int]]:
    """The stages of every rank, in order."""
    found: list[list[int]] = [[] for _ in range(candidate.num_devices // candidate.num_replicas)]
    for stage in candidate.stages:
        if stage.replica_index == 0:
            found[stage.rank].append(stage.stage_index)
    assert all(len(of) == per_rank for of in found), "stages are shared out evenly"
    return [sorted(of) for of in found]


def _replica_sums(candidate: Candidate) -> list[str]:
    if candidate.num_replicas == 1:
        return []
    return [
        "for parameter in modules.parameters():",
        '    dist.all_reduce(parameter.grad, group=mesh["replica"].get_group())',
        f"    parameter.grad.div_({candidate.num_replicas})  # each replica has the mean of its own examples",
    ]
