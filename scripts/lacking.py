"""Says what the environment of this interpreter lacks to run the package, one requirement a line.

    python lacking.py EXTRA PINS

EXTRA is `data` or `test` of setup.cfg. PINS is a file to write: every distribution that is here at the version it has,
so that adding what is lacking changes nothing, and constraints.txt for the others. (But for setuptools: an environment
is born with an old one, torch wants a later one, and nothing is computed with it.) Ends with status 1, and the reason
on standard output, where something is here but too old. The standard library is enough to run it.
"""

from __future__ import annotations

import configparser
import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "partition-pipeline"


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.13.0+cpu" is (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def read_requirements(extra: str) -> list[str]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["options"]["install_requires"] + "\n" + settings["options.extras_require"][extra]
    return [line for line in lines.split("\n") if line]


def find_installed() -> dict[str, str]:
    """Version by normalised name; the first found is the one that is imported."""
    installed: dict[str, str] = {}
    for distribution in distributions():
        name, version = distribution.metadata["Name"], distribution.version
        if name and version:
            installed.setdefault(normalise(name), version)
    return installed


def find_lacking(requirements: list[str], installed: dict[str, str]) -> Iterator[str]:
    """The requirements that nothing here meets.

    Raises:
        SystemExit: something is here, but older than required; this never replaces it.
    """
    for requirement in requirements:
        name, _, bound = requirement.partition(">=")
        version = installed.get(normalise(name))
        if version is None:
            # A build of one's own, torch most likely, can be importable and known to no installer.
            if importlib.util.find_spec(normalise(name)) is None:
                yield requirement
        elif bound and release(version) < release(bound):
            print(f"it has {name} {version}, {bound} or later is needed; upgrade it there, or unset PYTHON")
            raise SystemExit(1)


def is_this_package_installed() -> bool:
    spec = importlib.util.find_spec("partition")
    return spec is not None and spec.origin == str(ROOT / "partition" / "__init__.py")


def write_pins(path: Path, installed: dict[str, str]) -> None:
    kept = {name: version for name, version in installed.items() if name not in {PACKAGE, "setuptools"}}
    pins = {normalise(name): version for name, version in read_constraints()} | kept
    path.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))


def read_constraints() -> Iterator[tuple[str, str]]:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            yield name, version


def main(extra: str, pins: str) -> None:
    installed = find_installed()
    lacking = list(find_lacking(read_requirements(extra), installed))
    write_pins(Path(pins), installed)
    if not is_this_package_installed():
        lacking.append(PACKAGE)
    print("\n".join(lacking))


if __name__ == "__main__":
    main(*sys.argv[1:])
