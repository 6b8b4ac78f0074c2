"""Model names: ``B/4`` is size B with patch 4, wherever a document gives ``model`` (UMD paper, section 4).

A name stands for five fields and leaves the others (``adaln`` from the method) to the documents below it. It is expanded
before documents are merged, so that ``model: B/4`` in a tier and ``model: {adaln: false}`` in a sweep go together.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from umd_bench.config.documents.document import Document, Place
from umd_bench.config.errors import FieldError, UserError, one_of

# Encoder and decoder have one width; the MLP is four times as wide.
SIZES: dict[str, dict[str, int]] = {
    "S": {"width": 384, "depth": 12, "decoder_depth": 4, "heads": 6},
    "B": {"width": 768, "depth": 12, "decoder_depth": 4, "heads": 12},
    "L": {"width": 1024, "depth": 24, "decoder_depth": 8, "heads": 16},
}
_NAME = re.compile(r"^([A-Z])/([1-9]\d*)$")


def model_fields(name: str) -> dict[str, int]:
    """The fields that ``X/p`` stands for; :class:`FieldError` for another size or form."""
    match = _NAME.match(name)
    if match is None or match[1] not in SIZES:
        raise FieldError("model", name, f"{one_of(SIZES)}, a slash and the patch side, as in B/4; or a mapping of fields")
    return {**SIZES[match[1]], "patch": int(match[2])}


def expanded(document: Document, *prefix: str) -> Document:
    """The document with the model's name below ``prefix``, if there is one, replaced by its fields."""
    value: Any = document.value
    for part in prefix:
        value = value.get(part) if isinstance(value, dict) else None
    name = value.get("model") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return document
    path = (*prefix, "model")
    place = document.place(path)
    fields = _at(place, ".".join(path), name)
    bare = replace(document, value=_set(document.value, path, {}))
    return bare.patched(path, fields, place or Place("model"))


def expanded_value(path: tuple[str | int, ...], value: Any, place: Place) -> Any:
    """A value that is about to be put at ``path``: a name's fields where that is a model, else the value itself."""
    return _at(place, ".".join(map(str, path)), value) if path[-1:] == ("model",) and isinstance(value, str) else value


def _at(place: Place | None, path: str, name: str) -> dict[str, int]:
    try:
        return model_fields(name)
    except FieldError as error:
        raise UserError(f"{place}: {FieldError(path, name, error.accepted)}") from None


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = path
    return {**tree, name: _set(tree[name], tuple(rest), value) if rest else value}
