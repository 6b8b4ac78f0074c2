"""The generated part of docs/performance.md: every benchmark's tables between two markers, the hand-written part untouched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umd_bench.bench.tables import Finding
from umd_bench.config.errors import UserError
from umd_bench.store.files import write_atomic

BEGIN, END = "<!-- umd-bench bench all: begin -->", "<!-- umd-bench bench all: end -->"


def generated(findings: Sequence[tuple[str, Finding]], seconds: float, *, of: int) -> str:
    """The tables in Markdown, each benchmark under its command, with the machine's facts; ``of`` so many benchmarks in all."""
    whole = "" if len(findings) == of else f" The run was ended after {len(findings)} of {of} benchmarks."
    parts = [f"Made by `umd-bench bench all` in {seconds / 60:.0f} minutes.{whole}", findings[0][1].machine.line + "."]
    warnings = dict.fromkeys(f.machine.warning for _, f in findings if f.machine.warning is not None)
    parts += [f"Warning: {warning}." for warning in warnings]
    for command, finding in findings:
        parts.append(f"### `{command}`")
        parts += [table.markdown() for table in finding.tables()]
        parts += finding.remarks()
    return "\n\n".join(parts)


def write_page(path: Path, text: str) -> None:
    """Put ``text`` between the markers of ``path``.

    Raises :class:`UserError` where the file or one of its markers is missing, before which nothing is written.
    """
    old = check_page(path)
    before, rest = old.split(BEGIN, 1)
    write_atomic(path, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}".encode())


def check_page(path: Path) -> str:
    """The text of a page that has both markers once and in order; :class:`UserError` for another."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--page {path} cannot be read ({error.strerror}): expected docs/performance.md") from None
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"--page {path} has no generated part: expected the lines {BEGIN} and {END} once each")
    return text
