"""Model names: ``model: B/4`` in a document means size B with patches of 4 pixels (UMD paper, section 4).

A name sets ``width``, ``depth``, ``decoder_depth``, ``heads`` and ``patch``; ``adaln`` still comes from the method's preset.
Names are expanded before documents are merged, so ``model: B/4`` in a tier and ``model: {adaln: false}`` in a sweep combine.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from umd_bench.config.documents.document import Document, Location
from umd_bench.config.errors import FieldError, UserError, one_of

# Encoder and decoder have the same width; the MLPs are four times as wide.
MODEL_SIZES: dict[str, dict[str, int]] = {
    "S": {"width": 384, "depth": 12, "decoder_depth": 4, "heads": 6},
    "B": {"width": 768, "depth": 12, "decoder_depth": 4, "heads": 12},
    "L": {"width": 1024, "depth": 24, "decoder_depth": 8, "heads": 16},
}
_NAME = re.compile(r"^([A-Z])/([1-9]\d*)$")


def model_fields(name: str) -> dict[str, int]:
    """The fields that the name ``SIZE/PATCH`` sets. Raises :class:`FieldError` for an unknown size or another form."""
    match = _NAME.match(name)
    if match is None or match[1] not in MODEL_SIZES:
        raise FieldError("model", name, f"{one_of(MODEL_SIZES)}, a slash and the patch side, as in B/4; or a mapping of fields")
    return {**MODEL_SIZES[match[1]], "patch": int(match[2])}


def expand_model_name(document: Document, *prefix: str) -> Document:
    """The document with the model name below ``prefix`` replaced by its fields; unchanged if there is no name.

    Raises :class:`UserError` with the name's location if no model has that name.
    """
    value: Any = document.value
    for part in prefix:
        value = value.get(part) if isinstance(value, dict) else None
    name = value.get("model") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return document
    path = (*prefix, "model")
    location = document.location(path)
    fields = _fields_at(location, ".".join(path), name)
    bare = replace(document, value=_with_value(document.value, path, {}))
    return bare.patched(path, fields, location or Location("model"))


def expand_model_value(path: tuple[str | int, ...], value: Any, location: Location) -> Any:
    """The value to put at ``path``: the fields of a model name if ``path`` ends in ``model``, else ``value`` itself."""
    is_name = path[-1:] == ("model",) and isinstance(value, str)
    return _fields_at(location, ".".join(map(str, path)), value) if is_name else value


def _fields_at(location: Location | None, path: str, name: str) -> dict[str, int]:
    try:
        return model_fields(name)
    except FieldError as error:
        raise UserError(f"{location}: {FieldError(path, name, error.accepted)}") from None


def _with_value(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = path
    return {**tree, name: _with_value(tree[name], tuple(rest), value) if rest else value}
