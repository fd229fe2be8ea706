"""Code of the user's own, by its import path."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def import_path(path: str) -> Any:
    """What stands at package.module:name; running the module is part of it.

    Raises whatever the module does, SystemExit included, ImportError and AttributeError.
    """
    module_name, _, attributes = path.partition(":")
    # As `python -m` would, but last, so that no file of the user's takes the place of a package.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    found: Any = importlib.import_module(module_name)
    for name in attributes.split("."):
        found = getattr(found, name)
    return found
