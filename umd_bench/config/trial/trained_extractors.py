"""Classifiers that users train as feature extractors: their names, and their files below the data root.

    <data root>/extractors/<data>_cnn-<size>.safetensors    the weights
    <data root>/extractors/<data>_cnn-<size>.json           their description, which states their SHA-256

The key of a generate stage contains this SHA-256, because distances change if the classifier is trained again. Therefore the
configuration reads the SHA-256. evaluation/extractors/classifiers/trained.py reads the rest of the description.
"""

from __future__ import annotations

import json
from pathlib import Path

from umd_bench.config.errors import UserError

_SUFFIX = "_cnn"


def extractor_of(data: str) -> str:
    """The name of the classifier of the data set ``data``."""
    return data + _SUFFIX


def data_of(extractor: str) -> str:
    """The data set whose classifier is called ``extractor``; ``extractor`` itself if no classifier has such a name."""
    return extractor.removesuffix(_SUFFIX)


def trained_folder(root: Path) -> Path:
    """The folder of all trained classifiers below the data root ``root``."""
    return root / "extractors"


def weights_file(folder: Path, name: str, size: int) -> Path:
    """The weights of the classifier ``name`` for images of ``size`` pixels a side; the description ends in .json instead."""
    return folder / f"{name}-{size}.safetensors"


def trained_sha256(root: Path, name: str, size: int) -> str | None:
    """The SHA-256 (hex) of the weights of the classifier ``name``; None if it was not trained below the data root ``root``.

    Raises :class:`UserError` for a description that cannot be read.
    """
    path = weights_file(trained_folder(root), name, size).with_suffix(".json")
    try:
        sha256 = json.loads(path.read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise faulty_description(path, name) from None
    return str(sha256)


def faulty_description(path: Path, name: str) -> UserError:
    """The error for a description that cannot be read or lacks a field."""
    return UserError(f"{path} does not describe the extractor {name}: remove it, and train {name} again")
