"""The YAML files that ship in ``config/presets``, by name: methods, tiers, probe protocols and score profiles.

A probe stage that says ``protocol: full`` means the fields of ``presets/probes/full.yaml``. Other fields that the same document
gives for the stage override the protocol, and the protocol overrides the documents below it. A protocol is expanded before
documents are merged, so a stage's key depends on the protocol's fields and not on its name.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from umd_bench.config.documents.document import Document, Location, read_document
from umd_bench.config.errors import FieldError, UserError, one_of

PROTOCOL = "protocol"
PRESETS = Path(__file__).parents[1] / "presets"
TIER_SUFFIXES = (".yaml", ".yml")  # a tier with one of these endings is a path, not a name


def method_names() -> list[str]:
    """Names of the method presets, sorted."""
    return list(_names("methods"))


def tier_names() -> list[str]:
    """Names of the tiers, sorted."""
    return list(_names("tiers"))


def protocol_names() -> list[str]:
    """Names of the probe protocols, sorted."""
    return list(_names("probes"))


def profile_names() -> list[str]:
    """Names of the score profiles, sorted. A profile is a published way of scoring samples, as fields of a generate stage."""
    return list(_names("profiles"))


@functools.cache
def read_preset(path: str) -> Document:
    """The document of one preset, such as ``tiers/digits.yaml``; read once per process."""
    return read_document(PRESETS / path, name=f"presets/{path}")


def read_tier(name: Any, location: Location | None = None) -> Document:
    """The document of a tier: a preset's name, or the path of a YAML file.

    Raises :class:`UserError` if ``name`` is neither. The error begins with ``location``, which says where the tier was named.
    """
    if isinstance(name, str) and name.endswith(TIER_SUFFIXES):
        return read_document(Path(name))
    if name not in tier_names():
        where = f"{location}: " if location else ""
        raise UserError(f"{where}tier = {name!r} is not accepted: {one_of(tier_names())}, or the path of a YAML file")
    return read_preset(f"tiers/{name}.yaml")


def load_profile(name: str) -> Document:
    """The fields of the score profile ``name``. Raises :class:`UserError` for an unknown name."""
    if name not in profile_names():
        raise UserError(f"--profile {name!r} is not accepted: {one_of(profile_names())}")
    return read_preset(f"profiles/{name}.yaml")


def with_protocols(document: Document) -> Document:
    """A trial's document with the protocol of each stage replaced by its fields.

    Raises :class:`UserError` for an unknown protocol.
    """
    stages = document.value.get("stages")
    if not isinstance(stages, dict):
        return document
    for name, stage in stages.items():
        if isinstance(stage, dict) and PROTOCOL in stage:
            document = _with_protocol(document, name, stage)
    return document


def _with_protocol(document: Document, name: str, stage: dict[str, Any]) -> Document:
    path = ("stages", name, PROTOCOL)
    location = document.location(path)
    protocol = stage[PROTOCOL]
    if protocol not in protocol_names():
        raise UserError(
            f"{f'{location}: ' if location else ''}{FieldError('.'.join(path), protocol, one_of(protocol_names()))}"
        )
    fields = read_preset(f"probes/{protocol}.yaml").value
    expanded = Document({}).patched(("stages", name), fields, location or Location(PROTOCOL))
    own_fields = {field: value for field, value in stage.items() if field != PROTOCOL}
    stages = {**document.value["stages"], name: own_fields}
    locations = {at: where for at, where in document.locations.items() if at != path}
    return replace(document, value={**document.value, "stages": stages}, locations=locations).over(expanded)


@functools.cache
def _names(folder: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (PRESETS / folder).glob("*.yaml")))
