"""The tables in README.md and docs/index.md are parts of the committed table of mask_ratio, whose marks the pages count."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = "| mask_ratio "


def cells(page: Path) -> dict[tuple[str, str], str]:
    """(row, column) -> cell, in the first table of the page whose rows are mask ratios."""
    lines = page.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(FIRST))
    end = next(i for i, line in enumerate(lines) if i > start and not line.startswith("|"))
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end])
    return {(row[0], column): cell for row in rows for column, cell in zip(header, row, strict=True)}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_every_number_of_a_first_page_is_in_the_committed_table(page: str) -> None:
    shown, whole = cells(ROOT / page), cells(ROOT / "results/reference/mask_ratio/table.md")
    assert len(shown) >= 20
    assert {place: cell for place, cell in shown.items() if whole.get(place) != cell} == {}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_a_first_page_counts_the_marked_differences_of_the_committed_table(page: str) -> None:
    _, _, differences = (ROOT / "results/reference/mask_ratio/table.md").read_text().partition("## Differences")
    rows = [line for line in differences.splitlines() if line.startswith("| 0")]
    marked = sum(line.count("●") + line.count("○") for line in rows)
    text = " ".join((ROOT / page).read_text().split())
    assert f"It marks {marked} of the {sum(line.count('±') for line in rows)} differences" in text
    assert "leaves none at 5%" in differences
