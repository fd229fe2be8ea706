"""The pictures of docs/graph.md, from the command that the document describes.

python -m scripts.make_graph_docs                       writes docs/graph/*.svg

tests/scripts/test_graph_docs.py draws them again and compares.
"""

from __future__ import annotations

from pathlib import Path

from partition.cli import main as run

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = (
    "model.hidden_features=null",
    "model.blocks=[{linear: 256}, {residual: {norm: layer_norm, hidden: 512, dropout: 0.1}}, "
    "{residual: {norm: rms_norm, swiglu: 384}}, {norm: layer_norm}]",
)
PICTURES = {
    "forward": ("--forward", "--stages", "3"),
    "backward": ("--backward", "--stages", "3"),
    "second-order": ("--second-order", "--stages", "3"),
    "blocks": (*BLOCKS, "--stages", "2"),
}
"""Of each picture what `partition graph configs/mnist.yaml` is given besides."""


def draw(name: str, folder: Path) -> Path:
    """Draw a picture into a folder."""
    path = folder / f"{name}.svg"
    if run(["graph", str(ROOT / "configs/mnist.yaml"), *PICTURES[name], "--out-file", str(path)]) != 0:
        raise SystemExit(f"{name}: partition graph has failed")
    return path


def main() -> None:
    """Write the pictures."""
    for name in PICTURES:
        draw(name, ROOT / "docs/graph")


if __name__ == "__main__":
    main()
