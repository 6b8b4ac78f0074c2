"""The weights whose representation is probed: a snapshot of a parent, or the initial weights that its training started from.

The initial weights are the row to beat. Random weights already give usable features in some architectures (a plain block passes
the image on), and none in others (an adaLN-zero block is the identity, so its class tokens are the same for every image).
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, Protocol

import torch

from umd_bench.config.trial.stage_spec import COMPONENT_VERSIONS, StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.datasets import DataFacts
from umd_bench.engine.families import Evaluated, empty_model
from umd_bench.engine.networks.initialise import initial_model
from umd_bench.engine.training.snapshot import restore_model
from umd_bench.store.run import RunDir


class Weights(Protocol):
    """The weights of a model that represents images."""

    @property
    def identity(self) -> list[Any]:
        """Plain values that the weights depend on: they are part of the names of files with features."""
        ...

    def empty(self) -> Evaluated:
        """The model without values, on the meta device."""
        ...

    def model(self, device: torch.device) -> Evaluated:
        """The model on ``device``, in eval mode and without gradients. Raises :class:`UserError` if weights are missing."""
        ...


class SnapshotWeights:
    """The raw weights of ``run`` after ``nimg`` images; ``source`` is the data that it was trained on."""

    def __init__(self, run: RunDir, nimg: int, source: DataFacts) -> None:
        self._run, self._nimg, self._source = run, nimg, source

    @property
    def identity(self) -> list[Any]:
        """The run's key, ``nimg``, and the snapshot's content. Raises :class:`UserError` if the snapshot is missing."""
        return [self._run.key, self._nimg, self._sha256]

    def empty(self) -> Evaluated:
        """The model without values, on the meta device."""
        return empty_model(self._run.config(), self._source)

    def model(self, device: torch.device) -> Evaluated:
        """The restored model. Raises :class:`UserError` if the snapshot is missing or damaged."""
        return restore_model(self._run, self._nimg, source=self._source, device=device)

    @cached_property
    def _sha256(self) -> str:
        try:
            with self._run.snapshot(self._nimg).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:  # restoring the model raises the error that says so
            return str(self.model(torch.device("cpu")))


class InitialWeights:
    """The weights that the training stage ``spec`` starts from; ``source`` is the data that it is trained on.

    Stages of one architecture and seed share them, and so their features, whatever the corruption is.
    """

    def __init__(self, spec: StageSpec, source: DataFacts) -> None:
        self._spec, self._source = spec, source

    @property
    def identity(self) -> list[Any]:
        """The architecture, the input's shape, whether there is a label embedding, and the seed."""
        spec, source = self._spec, self._source
        classes = source.classes if isinstance(spec.stage, TrainStage) and spec.stage.labels else 0
        shape = [source.size, source.channels, classes]
        return ["initial", COMPONENT_VERSIONS["engine"], spec.model.model_dump(mode="json"), shape, spec.seed]

    def empty(self) -> Evaluated:
        """The model without values, on the meta device."""
        return empty_model(self._spec, self._source)

    def model(self, device: torch.device) -> Evaluated:
        """The model before the first step of its training."""
        facts = self._source
        model = initial_model(self._spec, size=facts.size, channels=facts.channels, classes=facts.classes, device=device)
        return model.eval().requires_grad_(requires_grad=False)


def initial_weights(run: RunDir, source: DataFacts) -> InitialWeights | None:
    """The initial weights of the first stage in the lineage of ``run``; None if that is an import of published weights.

    Raises :class:`UserError` if an ancestor has no run directory below the same root.
    """
    spec = run.config()
    while spec.parent_key is not None:
        spec = RunDir(run.root, spec.parent_key).config()
    return InitialWeights(spec, source) if isinstance(spec.stage, TrainStage) else None
