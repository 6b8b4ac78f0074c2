"""Atomic writes (a file appears complete or not at all), and reading of JSON and YAML."""

from __future__ import annotations

import json
import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from umd_bench.config.errors import UserError

# libyaml's classes are ten times as fast; PyYAML may be built without them.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_FIELD = re.compile(r"^([a-z_]+):(?=[ \n])", re.MULTILINE)
# Signs of several documents, or of anchors and aliases. A text with one of these is not parsed field by field.
_WHOLE = re.compile(r"^(---|\.\.\.|%)|[&*]", re.MULTILINE)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a temporary file, sync it, and rename it to ``path``: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys atomically. Raises ``ValueError`` for NaN and infinity."""
    write_atomic(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any | None:
    """The parsed file, or None if it does not exist. Raises :class:`UserError` if it is not JSON."""
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}); remove it, and it is written again") from None


def read_yaml(path: Path) -> Any:
    """The file's plain values. Raises ``OSError`` and ``yaml.YAMLError``."""
    return yaml.load(path.read_text(), _LOADER)


def read_yaml_fields(path: Path) -> Any:
    """As :func:`read_yaml`, but files with the same text below a top-level field share its value; do not modify the result.

    Thousands of stages differ only in their seed and their parent, and parsing takes nearly all the time of reading one.
    """
    text = path.read_text()
    try:
        fields = _by_field(text)
    except yaml.YAMLError:  # broken, or not in the layout of write_yaml: parse it as a whole
        fields = None
    return yaml.load(text, _LOADER) if fields is None else fields


def _by_field(text: str) -> dict[str, Any] | None:
    """The mapping, if each of its fields begins a line, else None. Raises ``yaml.YAMLError`` for a broken field."""
    parts = _FIELD.split(text)
    if parts[0] or len(parts) < 2 or _WHOLE.search(text):
        return None
    fields: dict[str, Any] = {}
    for name, below in zip(parts[1::2], parts[2::2], strict=True):
        parsed = _parsed(f"{name}:{below}")
        if not isinstance(parsed, dict) or list(parsed) != [name] or name in fields:
            return None
        fields |= parsed
    return fields


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    return yaml.load(text, _LOADER)


def write_yaml(path: Path, value: Any) -> None:
    """Write plain values as YAML atomically, with fields in their order."""
    write_atomic(path, yaml.dump(value, Dumper=_DUMPER, sort_keys=False).encode())


def link_new(source: Path, target: Path) -> bool:
    """Hard-link ``source`` to ``target`` unless ``target`` exists; return whether the link was made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def require_writable(folder: Path, purpose: str) -> None:
    """Create ``folder`` and test that files can be created in it. Raises :class:`UserError`, naming the ``purpose``, if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{purpose} {folder} cannot be written ({error.strerror}); give a folder that can be written") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
