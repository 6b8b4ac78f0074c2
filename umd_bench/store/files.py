"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from umd_bench.config.errors import UserError

# Ten times faster, where PyYAML was built with them.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


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
