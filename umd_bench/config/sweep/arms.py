"""How an arm of a sweep is named, as in ``sampler=ddim,steps=20``: in a file, on the command line, in a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_PART = r"([^=]+)=(\[[^\]]*\]|\([^)]*\)|[^,=\[\]()]+)(?:,(?=.)|$)"  # a value, [two, values], or (two, values) as in ids


def axis_names(paths: Sequence[str]) -> dict[str, str]:
    """Short name of each axis: the last part of its path or paths, or the whole where two would be alike."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def arm_name(values: Mapping[str, Any]) -> str:
    """``sampler=ddim,steps=20`` of an arm's ``values``, axis's path -> value: its trials' ids without the seed."""
    short = axis_names(list(values))
    return ",".join(f"{short[path]}={f'{value:g}' if isinstance(value, float) else value}" for path, value in values.items())


def parsed_arm(text: str) -> dict[str, Any]:
    """Axis -> value of ``axis=value,axis=value``, values read as YAML. Raises ``ValueError`` with a sentence.

    An axis of several paths may be written whole (``a.x, b.x=value``), and a value may be a list.
    """
    if not re.fullmatch(f"(?:{_PART})+", text):
        raise ValueError("expected axis=value, or several with commas between them")
    given: dict[str, Any] = {}
    for name, value in re.findall(_PART, text):
        if name.strip() in given:
            raise ValueError(f"{name.strip()} is given twice: expected each axis once")
        try:
            given[name.strip()] = yaml.safe_load(f"[{value[1:-1]}]" if value.startswith("(") else value)
        except yaml.YAMLError:
            raise ValueError(f"{value!r} is not a YAML value") from None
    return given


def arm_places(axes: Mapping[str, Sequence[Any]], given: Mapping[str, Any]) -> dict[str, int]:
    """Place of the ``given`` value of each of the ``axes`` (path -> values) among the axis's values.

    ``given`` names an axis by its path or its short name, and may leave out one that has one value. Raises ``ValueError``
    with a sentence where it does not name exactly one arm.
    """
    short = axis_names(list(axes))
    by_name = {name: path for path in axes for name in (short[path], path, ",".join(map(str.strip, path.split(","))))}
    places: dict[str, int] = {}
    for name, value in given.items():
        path = by_name.get(name)
        if path is None:
            raise ValueError(f"{name!r} is not an axis: expected {' and '.join(short.values())}")
        if path in places:
            raise ValueError(f"{short[path]} is given twice: expected each axis once")
        alike = [place for place, known in enumerate(axes[path]) if _alike(known, value)]
        printed = [place for place, known in enumerate(axes[path]) if _shown(known) == _shown(value)]
        found = next(iter(alike or printed), None)
        if found is None or (not alike and len(printed) > 1):
            raise ValueError(f"{short[path]} = {value!r} is no arm: expected one of {', '.join(map(_shown, axes[path]))}")
        places[path] = found
    lacking = [path for path in axes if path not in places and len(axes[path]) != 1]
    if lacking:
        raise ValueError(f"names several arms: expected a value of {' and of '.join(short[path] for path in lacking)} too")
    return {path: places.get(path, 0) for path in axes}


def _alike(known: Any, given: Any) -> bool:
    """Whether these are one value; ``1e-3``, a string to YAML, is the number as which a trial reads it."""
    if isinstance(known, bool) or isinstance(given, bool):
        return known is given
    if isinstance(known, str) != isinstance(given, str):
        try:
            return float(known) == float(given)
        except (TypeError, ValueError):
            return False
    return bool(known == given)


def _shown(value: Any) -> str:
    """As ids and tables print it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
