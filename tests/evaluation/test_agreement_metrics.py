"""Scores agree with independent implementations on the same features, to the tolerances that the documentation promises."""

from __future__ import annotations

import pytest
from evaluation.agreement_metrics import rows
from evaluation.agreement_table import BEGIN, END, PAGE, table
from evaluation.comparison import Row

ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.quantity}, {row.library}" for row in ROWS])
def test_scores_agree_with_the_library(row: Row) -> None:
    promised = {"torch-fidelity": 1e-5, "0": 1e-12}.get(row.library, 1e-6)
    assert row.difference < promised


def test_every_score_and_both_kinds_of_covariance_are_compared() -> None:
    text = " ".join(f"{row.quantity} {row.library}" for row in ROWS)
    for part in ("sqrtm", "nuclear norm", "KID", "Inception score", "Precision", "Recall"):
        assert part in text


def test_the_page_has_a_row_for_every_comparison_of_scores() -> None:
    page = PAGE.read_text(encoding="utf-8")
    printed = page[page.index(BEGIN) : page.index(END)]
    for row in ROWS:
        assert f"| {row.quantity} | {row.library} |" in printed


def test_the_table_shows_differences_to_two_digits() -> None:
    assert table([Row("a", "b", 0.0), Row("c", "d", 1.234e-9)]).splitlines()[2:] == ["| a | b | 0 |", "| c | d | 1.2e-09 |"]
