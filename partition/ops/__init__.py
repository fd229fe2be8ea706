"""Hand-written forward and backward pairs on plain tensors; `partition.ops.functional` has them for autograd."""

from partition.ops.activations import ACTIVATIONS, Activation
from partition.ops.affine import affine, affine_bias_grad, affine_input_grad, affine_weight_grad
from partition.ops.loss_protocols import Loss
from partition.ops.losses import LOSSES
from partition.ops.norms import affine_example_norms

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Activation",
    "Loss",
    "affine",
    "affine_bias_grad",
    "affine_example_norms",
    "affine_input_grad",
    "affine_weight_grad",
]
