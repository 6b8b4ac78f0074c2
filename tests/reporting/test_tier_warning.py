"""Whoever opens a table, a page or a JSON of a smoke or unchecked tier reads first that nothing can be concluded from it."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import rich.console
from reporting.built_results import TWO_ARMS, build_sweep

from analysis.published import comparison_page, load
from umd_bench.config.documents.presets import PRESETS
from umd_bench.config.sweep.tier_card import Check, TierCard, card_path, card_text, settings_digest
from umd_bench.reporting.report import print_report, report_json, write_report
from umd_bench.reporting.statistics.summary import summarize

SEEDS = "seeds=[0, 1]"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A tier's file without a card, and results of a sweep at it."""
    folder = tmp_path_factory.mktemp("own")
    tier = folder / "own.yaml"
    shutil.copy(PRESETS / "tiers" / "digits.yaml", tier)
    build_sweep(folder / "results", axes=TWO_ARMS, sets=(SEEDS, f"tier={tier}"))
    return str(tier), folder / "results"


def first_lines(root: Path) -> dict[str, str]:
    """The first line of every page of the sweep's report, of its printout, and of the page of published numbers."""
    summary = summarize(root, "mask_ratio")
    paths = write_report(summary, root)
    pages = {path.name: path.read_text() for path in (paths.table_md, paths.table_tex, paths.cost_md)}
    out = io.StringIO()
    print_report(root, "mask_ratio", rich.console.Console(width=200, file=out))
    pages |= {"printout": out.getvalue(), "table.html": paths.table_html.read_text().partition("<body>\n")[2]}
    return {name: text.splitlines()[0] for name, text in pages.items()}


@pytest.mark.slow
def test_an_unchecked_tier_is_named_in_the_first_line_everywhere(own: tuple[str, Path]) -> None:
    tier, root = own
    lines = first_lines(root)
    assert [name for name, line in lines.items() if f"Unchecked tier {tier}: " not in line] == []
    made = report_json(root, "mask_ratio")
    assert (list(made)[1], made["tier_status"]) == ("warning", "unchecked")
    assert made["warning"].startswith(f"Unchecked tier {tier}: ")


@pytest.mark.slow
def test_a_tier_that_passed_has_no_warning(own: tuple[str, Path]) -> None:
    tier, root = own
    check = Check(
        sweep="methods", seeds=(0,), split="test", data="digits", data_digest="d", gates={}, umd_bench="0", settings="x"
    )
    check = check.model_copy(update={"settings": settings_digest(tier)})
    card_path(tier).write_text(card_text(tier, TierCard(status="proxy", why="w", check=check)))
    try:
        lines = first_lines(root)
        assert lines["table.md"] == "# mask_ratio"
        assert [name for name, line in lines.items() if "tier" in line] == []
        made = report_json(root, "mask_ratio")
        assert (made["warning"], made["tier_status"]) == (None, "proxy")
    finally:
        card_path(tier).unlink()


def test_the_page_of_published_numbers_begins_with_the_warning(tmp_path: Path) -> None:
    build_sweep(tmp_path, "methods", sets=("seeds=[0]", "stages=[probe]"))
    summary = summarize(tmp_path, "methods")
    assert summary.warning
    assert comparison_page(summary, [load("imagenet64")]).startswith(f"**{summary.warning}**\n\n# Published")


def test_latex_prints_the_warning_with_the_table(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]", "stages=[probe]"))
    text = write_report(summarize(tmp_path, "mask_ratio"), tmp_path).table_tex.read_text()
    assert text.count("tier digits: ") == 2
    assert text.isascii()
