"""Writes the table of agreement with independent implementations into ``docs/evaluation.md``, between its markers.

    OMP_NUM_THREADS=1 PYTHONPATH=tests python -m evaluation.agreement_table

The rows come from ``rows()`` in every other module ``agreement_*`` of this folder. The tests set the tolerances.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

import torch
from evaluation.comparison import Row

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "evaluation.md"
BEGIN, END = "<!-- agreement -->", "<!-- /agreement -->"


def collected() -> list[Row]:
    """The rows of every module, sorted by module name, except that the scores come first."""
    names = sorted((path.stem for path in HERE.glob("agreement_*.py")), key=lambda name: (name != "agreement_metrics", name))
    modules = [importlib.import_module(f"evaluation.{name}") for name in names if name != Path(__file__).stem]
    return [row for module in modules for row in module.rows()]


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| quantity | compared with | largest relative difference |", "| :--- | :--- | ---: |"]
    for comparison, library, difference in rows:
        lines.append(f"| {comparison} | {library} | {'0' if difference == 0 else f'{difference:.1e}'} |")
    return "\n".join(lines)


def write(page: Path = PAGE) -> None:
    """Replace the text between the page's markers by the table."""
    text = page.read_text(encoding="utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(f"{text[:start]}\n{table(collected())}\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write()
