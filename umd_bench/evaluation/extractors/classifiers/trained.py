"""Classifiers that users trained on packs of their own: descriptions and weights below the data root.

config/trial/trained_extractors.py says which files there are. Imports no torch, since the checks before a sweep read this.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from umd_bench.config.documents.fields import Frozen
from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.trained_extractors import data_of, faulty_description, trained_folder, weights_file
from umd_bench.data.datasets import DATASETS, OWN_VERSION
from umd_bench.data.packs.manifest import folder_name, read_manifest
from umd_bench.evaluation.extractors.classifiers.recipes import Recipe, facts_of
from umd_bench.evaluation.extractors.contract import ExtractorFacts

LICENCE = "your own"
_FILE = re.compile(r"(?P<name>.+_cnn)-(?P<size>[1-9]\d*)\.json")


class Description(Frozen):
    """The content of a classifier's .json file.

    Accuracies are shares of a split's images, in [0, 1]; a split that the pack lacks has none. ``sha256`` is the hash of
    the weights, ``data_digest`` the digest of the pack.
    """

    sha256: str
    command: str
    trained_on: str
    test_accuracy: float
    validation_accuracy: float | None = None
    train_images: int
    data_digest: str
    recipe: Recipe
    device: str
    torch: str


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier with a description below the data root ``root``. Its weights may be missing."""

    name: str
    root: Path
    weights: Path
    description: Description

    @property
    def facts(self) -> ExtractorFacts:
        """The classifier as an extractor."""
        return facts_of(self.name, self.description.recipe, licence=LICENCE)

    @property
    def again(self) -> str:
        """The part of an error that says how to train it again."""
        description = self.weights.with_suffix(".json")
        return f"remove {description}, and `umd-bench extractor train {data_of(self.name)} --size {self.size}` trains it again"

    @property
    def size(self) -> int:
        """The side in pixels of the images it reads."""
        return self.description.recipe.size

    def find_weights(self) -> bytes:
        """The weight file.

        Raises :class:`UserError` if it is missing or has another SHA-256 than described, and if the pack below the data root
        no longer holds the images that the classifier was trained on.
        """
        try:
            weights = self.weights.read_bytes()
        except OSError as error:
            raise UserError(
                f"the weights of {self.name} cannot be read from {self.weights} ({error.strerror}): {self.again}"
            ) from None
        actual, expected = hashlib.sha256(weights).hexdigest(), self.description.sha256
        if actual != expected:
            raise UserError(
                f"{self.weights} is not what its description says (SHA-256 {actual[:12]}, expected {expected[:12]}): "
                f"{self.again}"
            )
        self._check_data()
        return weights

    def hash_weights(self) -> str:
        """The SHA-256 of the weights, in hex. Raises as :meth:`find_weights`."""
        self.find_weights()
        return self.description.sha256

    def _check_data(self) -> None:
        data = self.description.recipe.data
        version = DATASETS[data].version if data in DATASETS else OWN_VERSION
        pack = self.root / folder_name(data, version, self.size)
        if not pack.exists():
            return
        digest = read_manifest(pack).digest
        if digest != self.description.data_digest:
            raise UserError(
                f"{self.name} was trained on another {data} (digest {self.description.data_digest[:12]}) than the one in "
                f"{pack} ({digest[:12]}): {self.again}"
            )


def find_trained(name: str, root: Path, *, size: int | None, path: str) -> TrainedClassifier | None:
    """The classifier ``name`` for images of ``size`` pixels below the data root ``root``, None if it was not trained.

    Without ``size`` it has to be the only one of that name; otherwise this raises :class:`FieldError` for the field ``path``.
    Raises :class:`UserError` for a description that cannot be read.
    """
    if size is None:
        sizes = [known for other, known in trained_names(root) if other == name]
        if len(sizes) > 1:
            raise FieldError(path, name, f"it is trained at {', '.join(map(str, sizes))} pixels: expected only one size")
        if not sizes:
            return None
        size = sizes[0]
    weights = weights_file(trained_folder(root), name, size)
    description = weights.with_suffix(".json")
    if not description.exists():
        return None
    try:
        described = Description.model_validate_json(description.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        raise faulty_description(description, name) from None
    if (described.recipe.data, described.recipe.size) != (data_of(name), size):
        raise faulty_description(description, name)
    return TrainedClassifier(name, root, weights, described)


def trained_names(root: Path) -> Iterator[tuple[str, int]]:
    """Name and size in pixels of every description below the data root ``root``, sorted."""
    matches = (_FILE.fullmatch(file.name) for file in trained_folder(root).glob("*.json"))
    yield from sorted((match["name"], int(match["size"])) for match in matches if match is not None)
