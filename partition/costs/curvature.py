"""The costs of a stage of a Hessian-vector product: the same actions as a step of training, other programs in them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from partition.costs.block_work import Work
from partition.costs.model import CostModel
from partition.costs.stage import NetworkStageCost
from partition.costs.step import StepCost, StepWorkspace, num_rows
from partition.costs.work import program_work
from partition.errors import PartitionError
from partition.graph import Category, StageProgram, build_second_order_program


def check_format(*, is_mixed: bool) -> None:
    """Raise PartitionError where the arithmetic is in bfloat16: the programs of second order have none of its casts."""
    if is_mixed:
        raise PartitionError(
            "products with the Hessian need more digits than bfloat16 has, which is precision.compute here; set it to "
            "float32 or float64"
        )


class CurvatureStageCost(NetworkStageCost):
    """The layers of a stage with a direction, and the Hessian times it in place of gradients, for each parameter."""

    @cached_property
    def program(self) -> StageProgram:
        """The programs of the Hessian-vector product."""
        return build_second_order_program(self.network, self.layers[0].index, self.layers[-1].index)

    def static_bytes(self, num_microbatches: int) -> dict[Category, int]:
        """Parameters, the product where gradients stand in training, and the direction as the optimizer's state."""
        found = super().static_bytes(num_microbatches)
        found[Category.OPTIMIZER] += self.parameter_bytes
        found[Category.WORKSPACE] += self.rules.block_bytes(self.itemsize)  # the number that kernels multiply by
        return found

    @cached_property
    def step(self) -> StepCost:
        """The end of a product, which reads back a number for each row of the parameters: ‖H v‖², v·H v and ‖v‖²."""
        workspace = StepWorkspace(
            norms_bytes=num_rows(self.weighted) * self.wide_itemsize, update_bytes=self.optimizer.workspace_bytes
        )
        elements = self.parameter_elements
        return StepCost(
            memory=workspace.effect(self.rules),
            kernels=(Work(6 * elements, 4 * elements * self.itemsize), Work(0, 0)),
            elements=elements,
        )


class CurvatureCostModel(CostModel):
    """Stage costs of the Hessian-vector products of a network."""

    stage_cost = CurvatureStageCost
    can_recompute = False


def step_flop(model: CostModel, sizes: Iterable[int]) -> int:
    """Floating-point operations of forward and backward of the whole network on microbatches of these sizes."""
    whole = model.stage(0, model.network.num_layers - 1)
    return sum(
        work.flop
        for rows in sizes
        for program in (whole.program.forward, whole.program.backward)
        for work in program_work(program, rows, model.itemsize, model.network.loss)
    )
