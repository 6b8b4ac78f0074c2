"""Profiles: ways of scoring samples that others have agreed on, as fields of a generate stage in ``presets/profiles``."""

from __future__ import annotations

from umd_bench.config.documents.document import Document, read_document
from umd_bench.config.errors import UserError, one_of
from umd_bench.config.sweep.resolve import PRESETS

_FOLDER = PRESETS / "profiles"


def profile_names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_profile(name: str) -> Document:
    """The fields of the profile ``name``; :class:`UserError` for an unknown one."""
    if name not in profile_names():
        raise UserError(f"--profile {name!r} is not accepted: {one_of(profile_names())}")
    return read_document(_FOLDER / f"{name}.yaml", name=f"presets/profiles/{name}.yaml")
