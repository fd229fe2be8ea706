"""Floating-point operations and bytes of every operator; a multiply-add is 2 flop, every operand moves once."""

from __future__ import annotations

from partition.costs.block_work import Work, block_operator_key, block_operator_work, layer_shape
from partition.costs.hardware import Device
from partition.costs.mixed_work import mixed_operator_key, mixed_operator_work
from partition.costs.second_order import pair_key, pair_work
from partition.graph import LossRecord, Program
from partition.graph.mixed_operators import AddProduct, Cast, CastWeights, WeightProduct
from partition.graph.pair_operators import PairOperator
from partition.graph.program import (
    Activate,
    ActivationGrad,
    Affine,
    ExampleNorms,
    InputGrad,
    Load,
    LossAndGrad,
    Operator,
    WeightGrad,
    operators,
)


def operator_work(operator: Operator, rows: int, itemsize: int, loss: LossRecord) -> Work:
    """The work of one operator on `rows` examples."""
    if isinstance(operator, PairOperator):
        return Work(*pair_work(operator, rows, itemsize, loss))
    match operator:
        case Load(into):
            return Work(0, 2 * into.num_bytes(rows, itemsize))
        case Affine(layer, _, _, _) | InputGrad(layer, _, _, _):
            elements = rows * (layer.in_features + layer.out_features) + layer.parameter_elements
            return Work(2 * rows * layer.weight_elements, elements * itemsize)
        case WeightGrad(layer, _, _, _):
            # The gradient is read and written.
            elements = rows * (layer.in_features + layer.out_features) + 2 * layer.parameter_elements
            return Work(2 * rows * layer.weight_elements + rows * layer.bias_elements, elements * itemsize)
        case ExampleNorms(layer, _, _, _, _):
            elements = rows * (layer.in_features + layer.out_features)
            return Work(2 * elements, elements * itemsize)
        case Activate(layer, _, _):
            elements = rows * layer.out_features
            return Work(layer.activation.forward_flop * elements, 2 * elements * itemsize)
        case ActivationGrad(layer, _, _, workspace):
            elements = rows * layer.out_features
            return Work(layer.activation.backward_flop * elements, (5 if workspace else 3) * elements * itemsize)
        case LossAndGrad(o, targets, _, _, _):
            moved_bytes = 4 * o.num_bytes(rows, itemsize) + targets.num_bytes(rows, itemsize)
            return Work(loss.flop * rows * (o.columns or 1), moved_bytes)
        case Cast() | CastWeights() | WeightProduct() | AddProduct():
            return mixed_operator_work(operator, rows, itemsize)
        case _:
            return block_operator_work(operator, rows, itemsize)


def operator_key(operator: Operator, loss: LossRecord) -> str:
    """What a measured costs file knows an operator by: what it does, and on what shape besides the examples."""
    if isinstance(operator, PairOperator):
        return pair_key(operator, loss)
    match operator:
        case Load(into):
            return f"load {'class' if into.is_index else into.columns}"
        case Affine(layer, _, _, _):
            return f"affine {layer_shape(layer)}"
        case InputGrad(layer, _, _, _):
            return f"input gradient {layer.in_features}x{layer.out_features}"
        case WeightGrad(layer, _, _, _):
            return f"weight gradient {layer_shape(layer)}"
        case ExampleNorms(layer, _, _, _, _):
            return f"example norms {layer_shape(layer)}"
        case Activate(layer, z, h):
            return f"{layer.activation.name} {layer.out_features}{' in place' if z is h else ''}"
        case ActivationGrad(layer, _, _, _):
            return f"{layer.activation.name} gradient {layer.out_features}"
        case LossAndGrad(o, _, _, _, _):
            return f"{loss.name} {o.columns}"
        case Cast() | CastWeights() | WeightProduct() | AddProduct():
            return mixed_operator_key(operator)
        case _:
            return block_operator_key(operator)


def program_work(program: Program, rows: int, itemsize: int, loss: LossRecord) -> tuple[Work, ...]:
    """The kernels of a program, in order."""
    return tuple(operator_work(operator, rows, itemsize, loss) for operator in operators(program))


def seconds_on(device: Device, kernels: tuple[Work, ...]) -> float:
    """Seconds of a sequence of kernels, each bound by arithmetic or by memory (roofline, Williams et al. 2009)."""
    return sum(max(work.flop / device.flop_per_s, work.moved_bytes / device.memory_bytes_per_s) for work in kernels)
