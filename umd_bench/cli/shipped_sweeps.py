"""The sweeps that come with the package: ``umd-bench sweep mask_ratio`` runs one by its name, ``--list`` shows them all.

They are the YAML files of the repository's ``sweeps/``; a wheel carries them as ``umd_bench/sweeps/``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import umd_bench
from umd_bench.config.documents.document import read_document
from umd_bench.config.errors import UserError


@dataclass(frozen=True)
class ShippedSweep:
    """The description of a shipped sweep. ``cost`` is the text after ``Costs:`` in its comment, ``tier`` its default tier."""

    name: str
    question: str
    tier: str
    cost: str


def folder() -> Path:
    """Where the shipped sweeps lie: in the installed package, or in the checkout that an editable install points to."""
    package = Path(umd_bench.__file__).parent
    installed = package / "sweeps"
    return installed if installed.is_dir() else package.parent / "sweeps"


def names() -> list[str]:
    """The names of the shipped sweeps, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find_sweep_file(given: str) -> Path:
    """The path of the sweep's file that ``given`` names: a file's path, or the name of a shipped sweep.

    An existing file comes first. If there is none, a ``given`` with a suffix or a slash is returned as a path all the same, and
    any other is the name of a shipped sweep. Raises :class:`UserError` if no shipped sweep has that name.
    """
    path = Path(given)
    if path.is_file() or path.suffix or "/" in given or len(path.parts) != 1:
        return path
    if given not in (known := names()):
        close = difflib.get_close_matches(given, known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UserError(
            f"sweep {given!r} is not accepted: {meant}expected the path of a YAML file, or the name of a shipped sweep: "
            f"{', '.join(known)}"
        )
    return folder() / f"{given}.yaml"


def describe(name: str) -> ShippedSweep:
    """The description of the shipped sweep ``name``."""
    path = folder() / f"{name}.yaml"
    fields = read_document(path).value
    return ShippedSweep(name, fields["question"], fields["tier"], _comment_field(path.read_text(), "Costs"))


def _comment_field(text: str, name: str) -> str:
    """The text of a field such as ``Costs:`` in the file's opening comment, up to the next field, on one line."""
    comment = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    found = re.search(rf"\b{name}: +(.*?)(?= +(?:From|Costs|Run): |$)", comment)
    return found[1] if found else ""
