"""The table of a graph: equal layers in one, stages and boundaries with their bytes."""

from __future__ import annotations

from partition.graph.computational import GraphKind
from partition.report.graph.text import graph_text
from tests.report.graph.subjects import subject

FORWARD = """\
mnist: forward graph, 4 layers, a microbatch of B = 63
20 variables, 10 operators, 33 edges

layer      operator       computes                    shape        kept
-----------------------------------------------------------------------
0          affine         z = x Wᵀ + b                B×1024  444.9 KiB
           gelu           h = gelu(z)                 B×1024
1-2, each  affine         z = h Wᵀ + b                B×1024  252.0 KiB
           gelu           h = gelu(z)                 B×1024
3          affine         o = h Wᵀ + b                B×10
           cross_entropy  L = cross_entropy(o, y)     1
           penalty        s = λ/2 Σ ‖W‖², λ = 0.0001  1
           objective      J = L + s                   1

stage  layers  keeps                  bytes
-------------------------------------------
0      0-3     x, z0, z1, z2, ∂o  951.4 KiB

Kept: of a microbatch, from the forward of a stage to its backward."""


def test_equal_layers_stand_in_one_line() -> None:
    assert graph_text(subject(GraphKind.FORWARD, 4)) == FORWARD


def test_stages_and_boundaries_have_their_bytes() -> None:
    lines = graph_text(subject(GraphKind.BACKWARD, 60, 3, activation="relu")).splitlines()
    assert "1      simulated:1  20-39   h19, h20, h21, h22, ..., h37, h38, h39  5.2 MiB" in lines
    assert "∂h39     2 -> 1  B×1024  252.0 KiB" in lines
    assert sum("each" in line for line in lines) == 3


def test_the_second_order_says_what_its_letters_mean() -> None:
    text = graph_text(subject(GraphKind.SECOND_ORDER, 60))
    assert "58-1, each  second gelu gradient" in text
    assert "uz = uh Wᵀ + h vWᵀ + vb,  Hh += ∂z vW,  HW += ∂zᵀ uh + λ vW" in text
    assert "Hessian of J times a direction v" in text
