"""Only the generated part of docs/performance.md is replaced, and a page without markers is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from umd_bench.bench.measurements.scale import Growth, ScaleResult
from umd_bench.bench.page import BEGIN, END, check_page, results_markdown, write_page
from umd_bench.bench.timing.machine import machine_facts
from umd_bench.config.errors import UserError

MACHINE = machine_facts(torch.device("cpu"), None, "a processor")
RESULT = ScaleResult(MACHINE, (Growth("a thing", "the trials", (1, 10, 100), (1, 10, 100)),))


def test_only_the_text_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"by hand\n{BEGIN}\nformer tables\n{END}\nby hand too\n", encoding="utf-8")
    write_page(page, results_markdown([("umd-bench bench scale", RESULT)], 120, total=2))
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"by hand\n{BEGIN}\n")
    assert text.endswith(f"{END}\nby hand too\n")
    assert "former tables" not in text
    assert "### `umd-bench bench scale`" in text
    assert "| a thing | the trials | 1, 10, 100 |" in text
    assert MACHINE.line in text
    assert "after 1 of 2 benchmarks" in text


@pytest.mark.parametrize("text", ["", f"{END}\n{BEGIN}", f"{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_refused_and_not_changed(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="no generated part"):
        write_page(page, "new")
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(UserError, match="cannot be read"):
        write_page(tmp_path / "none.md", "new")


def test_the_performance_page_has_its_markers() -> None:
    assert check_page(Path(__file__).parents[2] / "docs" / "performance.md")
