"""The largest curvature in words."""

from __future__ import annotations

from partition.config import OptimizerConfig
from partition.record.curvature import CurvatureRecord, ProductCost
from partition.report.table import counted
from partition.units import format_bytes, format_seconds


def curvature_text(found: CurvatureRecord, optimizer: OptimizerConfig) -> str:
    """The eigenvalue with what is known of it, what follows for the learning rate, and what a product costs."""
    where = "initial parameters" if found.checkpoint is None else f"{found.checkpoint} (step {found.step})"
    examples = f"{found.num_examples:,} {'example' if found.num_examples == 1 else 'examples'}"
    lines = [
        f"Hessian of J on {examples}, {where}, on {found.candidate}:",
        f"largest eigenvalue {found.eigenvalue:.6g}, residual {found.residual:.2g}: {_state(found)}",
    ]
    if found.most_negative is not None:
        lines.append(f"the eigenvalue of largest magnitude is negative, {found.most_negative:.6g}: J curves down there")
    if found.is_converged and found.eigenvalue > 0:
        lines.append(_largest_learning_rate(found.eigenvalue, optimizer))
    return "\n".join([*lines, _cost(found.product)])


def _state(found: CurvatureRecord) -> str:
    products = counted(found.num_products, "product")
    if found.is_converged:
        return f"converged after {products}"
    return (
        f"not converged to {found.tolerance:g} after {products}; take more with --max-products, or a larger --tolerance"
    )


def _largest_learning_rate(eigenvalue: float, optimizer: OptimizerConfig) -> str:
    """Up to which steps on a quadratic of this curvature get smaller: 2 (1 + momentum) / eigenvalue (Polyak 1964)."""
    name, factor, momentum = "gradient descent without momentum", "2", optimizer.momentum
    if momentum:
        name, factor = f"SGD with momentum {momentum:g}", f"2 (1 + {momentum:g})"
    limit = 2 * (1 + momentum) / eigenvalue
    words = f"{name} diverges along it above lr = {factor}/{eigenvalue:.4g} = {limit:.4g}"
    return f"{words}; optimizer.lr is {optimizer.lr:g}" if optimizer.name == "sgd" else words


def _cost(product: ProductCost) -> str:
    simulated = " (simulated)" if product.clock == "simulated" else ""
    peak = format_bytes(max(product.predicted_peak_bytes))
    predicted, measured = format_seconds(product.predicted_s), format_seconds(product.measured_s)
    return (
        f"a product takes {product.flop_ratio:.2f} x the operations of a gradient, {predicted} a minibatch predicted, "
        f"{measured} measured{simulated}, at most {peak} on a device"
    )
