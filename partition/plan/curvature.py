"""The ways to train an experiment as ways to multiply by its Hessian: the same layouts, priced by other programs."""

from __future__ import annotations

from partition.config import ExperimentConfig, OptimizerConfig
from partition.costs import CurvatureCostModel
from partition.costs.curvature import check_format
from partition.errors import PartitionError
from partition.plan.candidate import Candidate
from partition.plan.search import Search
from partition.plan.shape import Shape, segments_of

STRATEGIES = ("whole", "accumulate", "pipeline", "data_parallel", "hybrid")
"""Those whose stages run programs of this project, on the whole minibatch."""


class CurvatureSearch(Search):
    """The candidates of an experiment for Hessian-vector products: bytes, operations and seconds are theirs.

    There is no optimizer and so no state of one. Measured costs are of a training step's operators: rates are those of
    the devices. Raises PartitionError where the arithmetic is in bfloat16.
    """

    known_strategies = STRATEGIES

    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__(_without_optimizer(config))
        training = self.model
        check_format(is_mixed=training.is_mixed)
        self.costs = CurvatureCostModel(training.network, training.optimizer, training.itemsize, training.rules)

    def priced_as(self, candidate: Candidate) -> Candidate:
        """The layout and split of a candidate for training, priced for products with the Hessian, all kept.

        Raises PartitionError where torch runs its stages.
        """
        if candidate.sharding:
            raise PartitionError(
                f"{candidate.name}: a sharded model is trained by torch's autograd, which has no program for products "
                "with the Hessian; take a pipeline, data_parallel or accumulate"
            )
        kept = [segment._replace(recompute=()) for segment in segments_of(candidate.stages)]
        return self.price(Shape.of(candidate), kept)


def _without_optimizer(config: ExperimentConfig) -> ExperimentConfig:
    admitted = config.planner.strategies or STRATEGIES
    strategies = tuple(strategy for strategy in STRATEGIES if strategy in admitted) or STRATEGIES
    planner = config.planner.model_copy(update={"costs": None, "strategies": strategies, "minibatch_sizes": None})
    return config.model_copy(update={"optimizer": OptimizerConfig(lr=config.optimizer.lr), "planner": planner})
