"""docs/tiers.md is what `umd-bench tier page` prints, so it agrees with the cards and with the gates' bounds."""

from __future__ import annotations

from pathlib import Path

from analysis.tier_card.page import page
from umd_bench.config.documents.presets import tier_names

PAGE = Path(__file__).parents[2] / "docs" / "tiers.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: umd-bench tier page > docs/tiers.md"


def test_every_tier_has_a_section() -> None:
    assert [name for name in tier_names() if f"\n## {name}\n\nStatus *" not in page()] == []
