"""Tables are Markdown, and numbers have three significant digits."""

from __future__ import annotations

from umd_bench.bench.tables import Table, number


def test_a_table_in_markdown_and_numbers_with_three_digits() -> None:
    assert Table("T", ("a", "b"), (("x", "1"),)).markdown() == "**T**\n\n| a | b |\n| :--- | ---: |\n| x | 1 |"
    assert [number(x) for x in (None, 1234.5, 12.34, 0.012345, 0)] == ["-", "1,230", "12.3", "0.0123", "0"]
