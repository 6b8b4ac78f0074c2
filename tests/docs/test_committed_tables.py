"""Numbers on pages are those of results/reference.

Every table with a mark such as ``<!-- from check_digits -->`` is a part of that committed table.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FINDINGS = ROOT / "docs" / "findings.md"
MARK = re.compile(r"<!-- from (\w+)(, differences)? -->\n\n((?:\|.*\n)+)")


def cells(table: str) -> dict[tuple[str, str], str]:
    """(row, column) -> cell of a Markdown table."""
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return {(row[0], column): cell for row in rows for column, cell in zip(header, row, strict=True)}


def committed(sweep: str, *, differences: bool) -> dict[tuple[str, str], str]:
    text = (ROOT / "results" / "reference" / sweep / "table.md").read_text()
    first, _, second = text.partition("## Differences")
    (table, *_) = re.findall(r"(?:^\|.*\n)+", second if differences else first, flags=re.MULTILINE)
    return cells(table)


@pytest.mark.parametrize(("page", "tables"), [("docs/findings.md", 4), ("README.md", 2), ("docs/index.md", 1)])
def test_every_number_of_a_marked_table_is_in_the_committed_table(page: str, tables: int) -> None:
    found = MARK.findall((ROOT / page).read_text())
    assert len(found) == tables
    for sweep, differences, table in found:
        shown, whole = cells(table), committed(sweep, differences=bool(differences))
        assert len(shown) >= 12
        assert {place: cell for place, cell in shown.items() if whole.get(place) != cell} == {}


def test_every_difference_in_a_sentence_of_the_findings_is_in_a_committed_table() -> None:
    sentences = " ".join(line for line in FINDINGS.read_text().splitlines() if not line.startswith("|"))
    stated = {(float(mean), float(half)) for mean, half in re.findall(r"(\d+\.\d+) ±\s+(\d+\.\d+)", sentences)}
    known = {
        (float(mean), float(half))
        for sweep in ("check_contrast16", "noise_schedule")
        for cell in committed(sweep, differences=True).values()
        for mean, half in re.findall(r"[+-](\d+\.\d+) ± (\d+\.\d+)", cell)
    }
    assert len(stated) >= 7
    assert stated <= known


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_a_first_page_counts_the_marked_differences_of_the_committed_table(page: str) -> None:
    _, _, text = (ROOT / "results" / "reference" / "mask_ratio" / "table.md").read_text().partition("## Differences")
    differences = committed("mask_ratio", differences=True).values()
    marked, all_ = sum(cell[-3:-2] in "●○" for cell in differences if cell.endswith("**")), sum("±" in c for c in differences)
    assert f"It marks {marked} of the {all_} differences" in " ".join((ROOT / page).read_text().split())
    assert "leaves none at 5%" in text
