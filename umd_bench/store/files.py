"""Files that appear whole or not at all."""

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

# Ten times faster, where PyYAML was built with them.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_FIELD = re.compile(r"^([a-z_]+):(?=[ \n])", re.MULTILINE)
_WHOLE = re.compile(r"^(---|\.\.\.|%)|[&*]", re.MULTILINE)  # several documents, or references from one field to another


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside ``path``, sync, rename: a reader sees the old file or the new one, never a part."""
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
    """:func:`write_atomic` of indented JSON with sorted keys; a NaN is refused with ``ValueError``."""
    write_atomic(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any | None:
    """The parsed file, or None where there is none. A file that is not JSON raises :class:`UserError`."""
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}); remove it to have it made again") from None


def read_yaml(path: Path) -> Any:
    """The file's plain values; raises ``OSError`` and ``yaml.YAMLError``."""
    return yaml.load(path.read_text(), _LOADER)


def read_yaml_fields(path: Path) -> Any:
    """As :func:`read_yaml`, but what stands below a field is parsed once however many files hold it; it is not to be changed.

    Thousands of stages differ in their seed and their parent alone, and parsing is nearly all that reading one takes.
    """
    text = path.read_text()
    try:
        fields = _by_field(text)
    except yaml.YAMLError:  # what is broken, or laid out otherwise than write_yaml does, is read as a whole
        fields = None
    return yaml.load(text, _LOADER) if fields is None else fields


def _by_field(text: str) -> dict[str, Any] | None:
    """A mapping whose fields each begin a line; None for any other text. Broken ones raise ``yaml.YAMLError``."""
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
    """:func:`write_atomic` of plain values as YAML, in their order."""
    write_atomic(path, yaml.dump(value, Dumper=_DUMPER, sort_keys=False).encode())


def link_new(source: Path, target: Path) -> bool:
    """Give ``source`` a second name ``target`` unless that name is taken: the first one wins. True when this one won."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def require_writable(folder: Path, what: str) -> None:
    """Create ``folder`` and prove that a file can be made in it; otherwise :class:`UserError` naming ``what``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{what} {folder} cannot be written ({error.strerror}); give a folder that can be") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
