"""The outputs in docs/backward.md, made anew by the commands above them.

python -m scripts.make_backward_docs                       runs every block and writes what it prints below it

A block of `sh` or `python` that is followed by a block of `text` owns it. Python blocks share their names from first to
last; of `sh` only the command `partition` is known. Everything runs in this process, from the root of the repository.
tests/scripts/test_backward_docs.py makes the document again and compares.
"""

from __future__ import annotations

import ast
import io
import re
import shlex
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from partition.cli import main as partition

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "backward.md"
_BLOCK = re.compile(r"```(sh|python)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
_CODE = re.compile(r"`(?:([\w.]+)` in `)?([\w/]+\.py)`")
_QUOTE = re.compile(r"`([^`]+)`")


class Quote(NamedTuple):
    """Words that a row of a table attributes to the docstring of a function, class or file."""

    words: str
    name: str
    """Empty for a file's own docstring."""
    path: str


def main() -> None:
    """Write the document with fresh outputs."""
    DOCUMENT.write_text(refreshed(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


def refreshed(text: str) -> str:
    """The text with every output made anew."""
    names: dict[str, Any] = {}

    def run(block: re.Match[str]) -> str:
        language, code, output = block.groups()
        with redirect_stdout(io.StringIO()) as printed:
            if language == "python":
                exec(compile(code, DOCUMENT.name, "exec"), names)
            elif output is not None:
                _run_commands(code)
        source = f"```{language}\n{code}```\n"
        return source if output is None else f"{source}\n```text\n{printed.getvalue()}```\n"

    with chdir(ROOT):
        return _BLOCK.sub(run, text)


def _run_commands(lines: str) -> None:
    for number, line in enumerate(lines.splitlines()):
        program, *arguments = shlex.split(line, comments=True)
        assert program == "partition", f"{line!r} is not a command of this project"
        if number:
            print()
        assert partition(arguments) == 0, f"{line!r} failed"


def outputs(text: str) -> str:
    """Everything that commands have printed."""
    return "\n".join(output or "" for _, _, output in _BLOCK.findall(text))


def prose(text: str) -> str:
    """The text without any block or table."""
    without = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return "\n".join(line for line in without.splitlines() if not line.startswith("|"))


def quotes(text: str) -> Iterator[Quote]:
    """What the rows of the tables quote: the code in backticks before the last cell, which names its source."""
    for line in text.splitlines():
        *cells, source = [cell.replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        found = _CODE.search(source)
        if line.startswith("|") and found:
            for words in _QUOTE.findall(" ".join(cells)):
                yield Quote(words, found[1] or "", found[2])


def named(text: str) -> Iterator[tuple[str, str]]:
    """Every name with its file, and every file by itself, with an empty name."""
    for found in _CODE.finditer(text):
        yield found[1] or "", found[2]


def docstring(name: str, path: str) -> str | None:
    """Of a function, a class or a method, `Class.method`, or of a file; None where there is no such thing."""
    if not (ROOT / path).is_file():
        return None
    node: Any = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for part in filter(None, name.split(".")):
        node = next((one for one in node.body if getattr(one, "name", None) == part), None)
        if node is None:
            return None
    return ast.get_docstring(node) or ""


def is_quoted_rightly(quote: Quote) -> bool:
    """Whether the words stand in that docstring, however lines break there."""
    found = docstring(quote.name, quote.path)
    return found is not None and " ".join(quote.words.split()) in " ".join(found.split())


if __name__ == "__main__":
    main()
