"""Protocols: ``protocol: full`` in a probe stage stands for the fields of ``presets/probes/full.yaml``.

What else the same document says of the stage wins over the protocol, and the protocol over the documents below it. It is
expanded before documents are merged and is in no key: the fields are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from umd_bench.config.documents.document import Document, Place, read_document
from umd_bench.config.errors import FieldError, UserError, one_of

FIELD = "protocol"
_FOLDER = Path(__file__).parents[1] / "presets" / "probes"


def protocol_names() -> list[str]:
    """The protocols there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def with_protocols(document: Document) -> Document:
    """The trial's document with every stage's protocol replaced by its fields; :class:`UserError` for an unknown one."""
    stages = document.value.get("stages")
    if not isinstance(stages, dict):
        return document
    for name, stage in stages.items():
        if isinstance(stage, dict) and FIELD in stage:
            document = _with_protocol(document, name, stage)
    return document


def _with_protocol(document: Document, name: str, stage: dict[str, Any]) -> Document:
    path = ("stages", name, FIELD)
    place = document.place(path)
    protocol = stage[FIELD]
    if protocol not in protocol_names():
        raise UserError(f"{f'{place}: ' if place else ''}{FieldError('.'.join(path), protocol, one_of(protocol_names()))}")
    fields = read_document(_FOLDER / f"{protocol}.yaml").value
    beneath = Document({}).patched(("stages", name), fields, place or Place(FIELD))
    rest = {field: value for field, value in stage.items() if field != FIELD}
    stages = {**document.value["stages"], name: rest}
    places = {at: where for at, where in document.places.items() if at != path}
    return replace(document, value={**document.value, "stages": stages}, places=places).over(beneath)
