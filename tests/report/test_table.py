"""Plain tables."""

from __future__ import annotations

from partition.report.table import table


def test_numbers_to_the_right_names_to_the_left() -> None:
    assert table(("name", "n"), [("a", "1"), ("long one", "1,234")]) == (
        "name          n\n"
        "---------------\n"
        "a             1\n"
        "long one  1,234"
    )  # fmt: skip


def test_no_line_ends_in_spaces() -> None:
    lines = table(("a", "b"), [("x", ""), ("y", "long")], left=(0, 1)).splitlines()
    assert all(line == line.rstrip() for line in lines)


def test_a_table_may_be_empty() -> None:
    assert table(("a", "b"), []).splitlines() == ["a  b", "----"]
