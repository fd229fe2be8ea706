"""Imports go one way, and nothing on the way to a plan imports torch.

Every rule is held against the package, and against a source that breaks it: a rule that cannot fail is none.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "partition"

# Each layer imports only those to its left; layers in one group do not know of each other.
GROUPS = (
    {"errors"},
    {"units"},
    {"config"},
    {"data", "graph"},
    {"costs"},
    {"schedule"},
    {"plan"},
    {"record"},
    {"report"},
)
TORCH_LAYERS = {"ops", "runtime"}
TOP = {"__init__", "__main__", "cli"}


def list_allowed() -> dict[str, set[str]]:
    allowed: dict[str, set[str]] = {}
    seen: set[str] = set()
    for group in GROUPS:
        allowed |= {layer: seen | {layer} for layer in group}
        seen = seen | group
    allowed["ops"] = allowed["record"] | {"ops"}
    allowed["runtime"] = allowed["ops"] | {"runtime"}
    return allowed


ALLOWED = list_allowed()


class Import(NamedTuple):
    """One imported module, absolute, where it stands, and whether importing the file runs it."""

    target: str
    line: int
    is_lazy: bool


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def walk(node: ast.AST, *, is_lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it runs only when called (or never)."""
    for child in ast.iter_child_nodes(node):
        yield child, is_lazy
        defers = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from walk(child, is_lazy=is_lazy or defers or is_for_types_only(child))


def name_targets(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        # `from partition import plan` imports a layer, `from partition.plan import x` whatever x is.
        return [f"{base}.{alias.name}" for alias in node.names] if base == PACKAGE else [base]
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
        return [str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    return []


def list_imports(path: str, source: str) -> list[Import]:
    package = path.removesuffix(".py").split("/")[:-1]
    return [
        Import(target, getattr(node, "lineno", 0), is_lazy)
        for node, is_lazy in walk(ast.parse(source))
        for target in name_targets(node, package)
    ]


def layer_of(path: str) -> str:
    return path.removesuffix(".py").split("/")[1]


def find_violations(path: str, source: str) -> list[str]:
    """What breaks the order in one file; the path is from the root, with slashes."""
    layer = layer_of(path)
    if layer not in ALLOWED and layer not in TOP:
        return [f"{path}: no layer is called {layer}"]
    return [
        f"{path}:{found.line}: {layer} may not import {found.target}"
        for found in list_imports(path, source)
        if not is_allowed(layer, found)
    ]


def is_allowed(layer: str, found: Import) -> bool:
    top, *rest = found.target.split(".")
    if top == "torch":
        return layer in TORCH_LAYERS or (layer in TOP and found.is_lazy)
    if top != PACKAGE:
        return True
    target = rest[0] if rest else "__init__"
    if layer in TOP:
        return found.is_lazy or target not in TORCH_LAYERS
    return target in ALLOWED[layer]


def test_the_package_keeps_the_order() -> None:
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    assert paths
    found = [
        violation
        for path in paths
        for violation in find_violations(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        # The order of the layers.
        ("partition/errors.py", "import partition.units"),
        ("partition/units.py", "from partition.config import load"),
        ("partition/config/schema.py", "from partition.data import describe"),
        ("partition/data/dataset.py", "from partition.graph.network import Layer"),
        ("partition/graph/network.py", "import partition.data"),
        ("partition/graph/network.py", "from partition.costs import Work"),
        ("partition/costs/work.py", "from partition.schedule.actions import Action"),
        ("partition/schedule/actions.py", "from partition.plan import compare"),
        ("partition/plan/split.py", "from partition.record import Run"),
        ("partition/record/run.py", "from partition.report import table"),
        ("partition/report/table.py", "from partition.ops import affine"),
        ("partition/report/table.py", "from partition.runtime import train"),
        ("partition/ops/affine.py", "from partition.runtime.stage import Stage"),
        ("partition/ops/affine.py", "from partition.report import table"),
        ("partition/runtime/stage.py", "from partition.report import table"),
        ("partition/runtime/stage.py", "from partition.cli import main"),
        ("partition/plan/split.py", "import partition"),
        ("partition/plan/split.py", "from partition import load_config"),
        # However it is written.
        ("partition/plan/split.py", "from partition import record"),
        ("partition/plan/split.py", "from ..record import Run"),
        ("partition/plan/__init__.py", "from .. import record"),
        ("partition/plan/split.py", "import json, partition.record as notes"),
        ("partition/plan/split.py", "def f():\n    from partition.record import Run"),
        ("partition/plan/split.py", "if TYPE_CHECKING:\n    from partition.record import Run"),
        ("partition/plan/split.py", "import importlib\nimportlib.import_module('partition.record')"),
        # Only ops and runtime import torch.
        ("partition/plan/split.py", "import torch"),
        ("partition/plan/split.py", "from torch.nn import Linear"),
        ("partition/plan/split.py", "def f():\n    import torch"),
        ("partition/report/table.py", "if TYPE_CHECKING:\n    import torch"),
        ("partition/data/dataset.py", "__import__('torch')"),
        # What is over all imports it, and what imports it, only where it is called for.
        ("partition/__init__.py", "import torch"),
        ("partition/__init__.py", "from partition.runtime import train"),
        ("partition/cli/training.py", "import torch.distributed"),
        ("partition/cli/training.py", "from partition.ops import affine"),
        ("partition/__main__.py", "try:\n    import torch\nexcept ImportError:\n    pass"),
        # A new layer has a place in the order before it has a file.
        ("partition/helpers/text.py", ""),
    ],
)
def test_a_source_that_breaks_the_order_is_found(path: str, source: str) -> None:
    assert len(find_violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("partition/units.py", "from partition.errors import PartitionError"),
        ("partition/plan/split.py", "from partition.schedule import generate\nfrom . import candidate"),
        ("partition/report/table.py", "from partition.record import Run"),
        (
            "partition/runtime/stage.py",
            "import torch\nfrom partition.ops import affine\nfrom partition.record import Run",
        ),
        ("partition/__main__.py", "from partition.cli import main"),
        (
            "partition/cli/training.py",
            "from partition import report\ndef f():\n    from partition.runtime import train",
        ),
        ("partition/__init__.py", "if TYPE_CHECKING:\n    import torch\nfrom partition.plan import compare"),
        ("partition/data/sources.py", "import torchlike\nimport partition_other"),
    ],
)
def test_a_source_that_keeps_the_order_is_not_found(path: str, source: str) -> None:
    assert find_violations(path, source) == []


def list_imported(statement: str) -> set[str]:
    """The top-level modules that a new interpreter has imported after a statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps([name.split('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


HEAVY = {"torch", "matplotlib", "pandas", "scipy", "sklearn", "mlxtend"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not list_imported("import partition") & HEAVY


def test_importing_every_layer_of_a_plan_imports_nothing_heavy() -> None:
    layers = [path for path in sorted((ROOT / PACKAGE).rglob("*.py")) if layer_of_file(path) not in TORCH_LAYERS]
    names = [path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in layers]
    modules = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    assert not list_imported(f"import {', '.join(modules)}") & HEAVY


def layer_of_file(path: Path) -> str:
    return layer_of(path.relative_to(ROOT).as_posix())


def test_a_heavy_import_is_noticed() -> None:
    assert "numpy" in list_imported("import numpy")
