"""Writes the tables of all benchmarks into docs/performance.md, between two markers. The rest of the page is not changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umd_bench.bench.tables import BenchResult
from umd_bench.config.errors import UserError
from umd_bench.store.files import write_atomic

BEGIN, END = "<!-- umd-bench bench all: begin -->", "<!-- umd-bench bench all: end -->"


def results_markdown(results: Sequence[tuple[str, BenchResult]], seconds: float, *, total: int) -> str:
    """In Markdown: the facts of the machine, then the tables of each ``(command, result)``.

    ``seconds`` is the time that the benchmarks in ``results`` took; ``total`` is the number of benchmarks in the suite.
    """
    ended = "" if len(results) == total else f" The run was ended after {len(results)} of {total} benchmarks."
    parts = [f"Made by `umd-bench bench all` in {seconds / 60:.0f} minutes.{ended}", results[0][1].machine.line + "."]
    warnings = dict.fromkeys(result.machine.warning for _, result in results if result.machine.warning is not None)
    parts += [f"Warning: {warning}." for warning in warnings]
    for command, result in results:
        parts.append(f"### `{command}`")
        parts += [table.markdown() for table in result.tables()]
        parts += result.remarks()
    return "\n\n".join(parts)


def write_page(path: Path, text: str) -> None:
    """Replace the part of the page between its markers by ``text``.

    Raises :class:`UserError` if the file or one of its markers is missing; then nothing is written.
    """
    old = check_page(path)
    before, rest = old.split(BEGIN, 1)
    write_atomic(path, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}".encode())


def check_page(path: Path) -> str:
    """The page's text. Raises :class:`UserError` unless it can be read and has both markers, once each and in order."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--page {path} cannot be read ({error.strerror}): expected docs/performance.md") from None
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"--page {path} has no generated part: expected the line {BEGIN} once, and then the line {END} once")
    return text
