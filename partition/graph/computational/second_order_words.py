"""How the operators of the second-order graph are written: their signs and formulas."""

from __future__ import annotations

import re
from typing import NamedTuple

from partition.graph.computational.described import AFFINE
from partition.graph.computational.describing_blocks import DROPOUT, GATE, NORMS, RESIDUAL_SUM
from partition.graph.computational.nodes import OperatorNode

LINEAR = (DROPOUT, RESIDUAL_SUM)
"""Operators of the forward whose second derivative is 0."""


class Pair(NamedTuple):
    """An operator of the forward and what the backward does for it."""

    forward: OperatorNode
    backward: tuple[OperatorNode, ...]
    has_input: bool
    """What it reads depends on parameters."""


def double_words(pair: Pair, has_penalty: bool) -> tuple[str, str]:
    """Sign and formula of the adjoint of what the backward does for an operator."""
    forward = pair.forward
    if forward.label == "φ":
        return "φ''", f"uh = uz ⊙ {forward.name}',  Hz += uz ⊙ ∂h ⊙ {forward.name}''"
    if forward.name == AFFINE:
        return "×+", _affine(pair, has_penalty)
    if forward.name in NORMS:
        return "N''", _norm(pair)
    if forward.name == GATE:
        a, b = forward.reads
        value = f"uh = silu'({a}) ⊙ u{a} ⊙ {b} + silu({a}) ⊙ u{b}"
        return "⊙''", (
            f"{value},  H{a} += ∂h ⊙ (silu''({a}) ⊙ u{a} ⊙ {b} + silu'({a}) ⊙ u{b}),  H{b} += ∂h ⊙ silu'({a}) ⊙ u{a}"
        )
    if forward.name in LINEAR:
        return forward.label, _along(forward.formula, "u")
    return f"{forward.label}''", f"the adjoint of the {forward.name} gradient"


def second_words(pair: Pair) -> tuple[str, str]:
    """Sign and formula of the adjoint of an operator, on cotangents of the second order."""
    forward, label = pair.forward, f"{pair.forward.label}'"
    bias = any(name.startswith("b") for name in forward.reads)
    if forward.label == "φ":
        return label, f"Hz += Hh ⊙ {forward.name}'"
    if forward.name == AFFINE:
        z, h = letter(forward.writes[0]), letter(forward.reads[0])
        to_input = f"H{h} += H{z} W,  " if pair.has_input else ""
        return "×", f"{to_input}HW += H{z}ᵀ {h}" + f",  Hb = Σ H{z}" * bias
    if forward.name in NORMS:
        of = letter(forward.reads[0])
        to_input = f"H{of} += {forward.name}'({of}) (Hn ⊙ w),  " if pair.has_input else ""
        return label, f"{to_input}Hw += Σ Hn ⊙ {forward.name}({of})" + ",  Hb = Σ Hn" * bias
    if forward.name == GATE:
        a, b = forward.reads
        return label, f"H{a} += Hh ⊙ silu'({a}) ⊙ {b},  H{b} += Hh ⊙ silu({a})"
    if forward.name == DROPOUT:
        d, h = letter(forward.writes[0]), letter(forward.reads[0])
        return label, f"H{h} += " + forward.formula.split(" = ")[1].replace(f"⊙ {h}", f"⊙ H{d}")
    if forward.name == RESIDUAL_SUM:
        return "+", ",  ".join(f"H{letter(name)} += Hr" for name in forward.reads)
    return label, f"the {forward.name} gradient, of H"


def letter(name: str) -> str:
    """Of a value: h of `h3@1`."""
    return re.split(r"[0-9@']", name)[0]


def _affine(pair: Pair, has_penalty: bool) -> str:
    z, h = letter(pair.forward.writes[0]), letter(pair.forward.reads[0])
    bias = " + vb" if any(name.startswith("b") for name in pair.forward.reads) else ""
    penalty = "λ vW" * has_penalty
    if not pair.has_input:
        return f"u{z} = {h} vWᵀ{bias}" + (f",  HW += {penalty}" if penalty else "")
    weight = f"∂{z}ᵀ u{h}" + (f" + {penalty}" if penalty else "")
    return f"u{z} = u{h} Wᵀ + {h} vWᵀ{bias},  H{h} += ∂{z} vW,  HW += {weight}"


def _norm(pair: Pair) -> str:
    of, norm = letter(pair.forward.reads[0]), pair.forward.name
    bias = " + vb" if any(name.startswith("b") for name in pair.forward.reads) else ""
    if not pair.has_input:
        return f"un = {norm}({of}) ⊙ vw{bias}"
    value = f"un = {norm}'({of}) u{of} ⊙ w + {norm}({of}) ⊙ vw{bias}"
    curved = f"H{of} += {norm}''({of}) (u{of}, ∂n ⊙ w) + {norm}'({of}) (∂n ⊙ vw)"
    return f"{value},  {curved},  Hw += Σ ∂n ⊙ {norm}'({of}) u{of}"


def _along(formula: str, prefix: str) -> str:
    """A linear formula with a letter before every value: `d = m ⊙ h` as `ud = m ⊙ uh`."""
    return re.sub(r"\b([hdnrzx])\b", rf"{prefix}\1", formula)
