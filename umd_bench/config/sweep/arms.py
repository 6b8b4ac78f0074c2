"""How an arm of a sweep (a combination of axis values) is named in a file, on the command line and in tables.

An arm is written ``sampler=ddim,steps=20``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

# axis=value, where a value is a scalar, [a, list], or (a, list) as in the ids of trials
_PART = r"([^=]+)=(\[[^\]]*\]|\([^)]*\)|[^,=\[\]()]+)(?:,(?=.)|$)"


def axis_names(paths: Sequence[str]) -> dict[str, str]:
    """The short name of each axis: the last part of its path, or the whole path if two axes have the same last part."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def arm_name(values: Mapping[str, Any]) -> str:
    """``sampler=ddim,steps=20`` for an arm's ``values``, axis path -> value. A trial's id is this name and its seed."""
    short = axis_names(list(values))
    return ",".join(f"{short[path]}={f'{value:g}' if isinstance(value, float) else value}" for path, value in values.items())


def parsed_arm(text: str) -> dict[str, Any]:
    """Parse ``axis=value,axis=value`` into axis -> value, with values read as YAML.

    An axis of several paths may be written in full (``a.x, b.x=value``), and a value may be a list. Raises ``ValueError``,
    whose text is one sentence.
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


def arm_indices(axes: Mapping[str, Sequence[Any]], given: Mapping[str, Any]) -> dict[str, int]:
    """For each of ``axes`` (path -> values), the index of the ``given`` value among the axis's values.

    ``given`` may call an axis by its path or its short name, and may leave out an axis that has a single value. Raises
    ``ValueError``, whose text is one sentence, unless ``given`` names exactly one arm.
    """
    short = axis_names(list(axes))
    by_name = {name: path for path in axes for name in (short[path], path, ",".join(map(str.strip, path.split(","))))}
    indices: dict[str, int] = {}
    for name, value in given.items():
        path = by_name.get(name)
        if path is None:
            raise ValueError(f"{name!r} is not an axis: expected {' and '.join(short.values())}")
        if path in indices:
            raise ValueError(f"{short[path]} is given twice: expected each axis once")
        equal = [index for index, known in enumerate(axes[path]) if _equal(known, value)]
        printed_alike = [index for index, known in enumerate(axes[path]) if _printed(known) == _printed(value)]
        index = next(iter(equal or printed_alike), None)
        if index is None or (not equal and len(printed_alike) > 1):
            raise ValueError(f"{short[path]} = {value!r} is no arm: expected one of {', '.join(map(_printed, axes[path]))}")
        indices[path] = index
    missing = [path for path in axes if path not in indices and len(axes[path]) != 1]
    if missing:
        raise ValueError(f"names several arms: expected a value of {' and of '.join(short[path] for path in missing)} too")
    return {path: indices.get(path, 0) for path in axes}


def _equal(known: Any, given: Any) -> bool:
    """Whether two values mean the same in a trial. YAML reads ``1e-3`` as a string, and a trial takes it as a number."""
    if isinstance(known, bool) or isinstance(given, bool):
        return known is given
    if isinstance(known, str) != isinstance(given, str):
        try:
            return float(known) == float(given)
        except (TypeError, ValueError):
            return False
    return bool(known == given)


def _printed(value: Any) -> str:
    """The value as ids and tables print it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
