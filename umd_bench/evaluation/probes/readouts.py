"""The read-outs that a probe stage asks for: few-shot ridge regression, k nearest neighbours, a linear layer.

They read any features of the stage's images with the same draws of shots: a representation, the raw pixels, the
representation of other weights. Shapes: N images, D features. Accuracies are shares in [0, 1].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.data.packs.pack import Pack
from umd_bench.evaluation.probes.knn import knn_accuracies
from umd_bench.evaluation.probes.linear_probe import linear_probe
from umd_bench.evaluation.probes.ridge import RidgeProbe, draw_shots, fit_ridge, fit_ridge_path
from umd_bench.evaluation.stage_result import Fact
from umd_bench.evaluation.storage.arrays import load_or_compute
from umd_bench.evaluation.storage.cache_names import cache_name, numeric_environment
from umd_bench.evaluation.storage.rows import FeatureRows, Index

Metrics = dict[str, float]
Facts = dict[str, Fact]

_VERSION = 1  # goes up when the same features would give other numbers


class Readouts:
    """The read-outs of ``stage`` on the images of ``pack``, with the draws of ``seed``.

    ``shots`` holds for each draw and number of shots the indices of the drawn training images. ``drawn`` are the training
    images whose features are needed; None: all. In the methods, ``train`` are the features of the images ``drawn``, or with
    ``whole`` of all training images; ``scored`` are the features of all images of the split ``stage.split``.
    """

    def __init__(self, pack: Pack, stage: ProbeStage, seed: int, device: torch.device) -> None:
        self._pack, self._stage, self._seed, self._device = pack, stage, seed, device
        self._classes = len(pack.manifest.class_names)
        labels = pack.split("train").labels
        seeds = [derive_seed(seed, "probe/shots", draw) for draw in range(stage.draws)]
        self.shots = [draw_shots(labels, stage.shots, classes=self._classes, seed=draw_seed) for draw_seed in seeds]
        every = [rows for draw in self.shots for rows in draw.values()]
        self.drawn: Index | None = None if stage.reads_all else np.unique(np.concatenate(every))

    @property
    def most_drawn(self) -> Index:
        """The training images drawn for the largest number of shots, which include the images drawn for fewer shots."""
        return np.unique(np.concatenate([draw[max(self._stage.shots)] for draw in self.shots]))

    def validation_accuracy(self, train: FeatureRows, validation: FeatureRows) -> float:
        """The mean accuracy over the draws at the largest number of shots, in [0, 1], on the validation split.

        ``train`` are the features of the images :attr:`most_drawn`, ``validation`` those of the whole split.
        """
        k, drawn = max(self._stage.shots), self.most_drawn
        labels = {split: torch.from_numpy(self._pack.split(split).labels) for split in ("train", "validation")}
        x_validation = torch.from_numpy(np.array(validation[:]))
        scores = []
        for draw in self.shots:
            x = torch.from_numpy(np.array(train[np.searchsorted(drawn, draw[k])]))
            probe, _ = self._fitted(x, labels["train"][draw[k]])
            scores.append(probe.accuracy(x_validation, labels["validation"]))
        return float(np.mean(scores))

    def of(self, name: str, train: FeatureRows, scored: FeatureRows) -> tuple[Metrics, Facts]:
        """All read-outs: ``<name>_<k>shot`` and its deviation ``_sd`` over several draws, ``<name>_knn<k>``, ``<name>_linear``.

        The facts say how they were made. Raises :class:`UserError` for features that are NaN or infinite, and if the k of k-NN
        exceeds the number of training images.
        """
        metrics, facts = self._few_shot(name, train, scored)
        more, more_facts = self._whole_split(name, train, scored)
        return metrics | more, facts | more_facts

    def of_shared(
        self,
        name: str,
        train: FeatureRows,
        scored: FeatureRows,
        *,
        features: list[str],
        cache: Path | None,
        whole: bool = False,
    ) -> Metrics:
        """:meth:`of`, for features that many stages share. k-NN and the linear probe, which use every image, run only once.

        Their results are kept in the folder ``cache`` (None: not at all). ``features`` identifies the features; [] are the
        pixels.
        """
        metrics, _ = self._few_shot(name, train, scored, whole=whole)
        stage = self._stage
        if not stage.reads_all:
            return metrics

        def compute() -> dict[str, NDArray[np.float64]]:
            accuracies, _ = self._whole_split(name, train, scored)
            return {name: np.array(value) for name, value in accuracies.items()}

        if cache is None:
            arrays = compute()
        else:
            fields, here = stage.model_dump(mode="json", include={"knn", "linear"}), numeric_environment(self._device)
            inputs = [_VERSION, self._pack.manifest.digest, stage.split, fields, self._seed, *here, *features]
            arrays = load_or_compute(cache / f"{cache_name(inputs)}.cache", compute)
        return metrics | {name: float(value) for name, value in arrays.items()}

    def _few_shot(self, name: str, train: FeatureRows, scored: FeatureRows, *, whole: bool = False) -> tuple[Metrics, Facts]:
        """Mean and deviation over the draws, for each number of shots."""
        stage = self._stage
        if not stage.shots:
            return {}, {}
        metrics: Metrics = {}
        facts: Facts = {"shots": list(stage.shots), "draws": stage.draws, "bias": stage.bias}
        facts |= {"ridges": list(stage.ridge)} if isinstance(stage.ridge, tuple) else {"ridge": stage.ridge}
        drawn = None if whole else self.drawn
        labels = {split: torch.from_numpy(self._pack.split(split).labels) for split in ("train", stage.split)}
        x_scored = torch.from_numpy(np.array(scored[:]))
        for k in stage.shots:
            scores, penalties = [], []
            for draw in self.shots:
                rows = draw[k] if drawn is None else np.searchsorted(drawn, draw[k])
                x, y = torch.from_numpy(np.array(train[rows])), labels["train"][draw[k]]
                probe, penalty = self._fitted(x, y)
                scores.append(probe.accuracy(x_scored, labels[stage.split]))
                penalties.append(penalty)
            metrics[f"{name}_{k}shot"] = float(np.mean(scores))
            if len(scores) > 1:
                metrics[f"{name}_{k}shot_sd"] = float(np.std(scores, ddof=1))
            if isinstance(stage.ridge, tuple):
                facts[f"ridge_{k}shot"] = penalties
        return metrics, facts

    def _fitted(self, x: torch.Tensor, y: torch.Tensor) -> tuple[RidgeProbe, float]:
        """The probe fitted to these shots, and its penalty.

        If the stage lists several penalties, the one with the smallest leave-one-out error is chosen.
        """
        stage = self._stage
        if not isinstance(stage.ridge, tuple):
            return fit_ridge(x, y, classes=self._classes, ridge=stage.ridge, bias=stage.bias), stage.ridge
        path = fit_ridge_path(x, y, classes=self._classes, ridges=stage.ridge, bias=stage.bias)
        return path.probe(path.best), path.ridges[path.best]

    def _whole_split(self, name: str, train: FeatureRows, scored: FeatureRows) -> tuple[Metrics, Facts]:
        """The read-outs that use every training image: k-NN and the linear probe."""
        stage, classes, device = self._stage, self._classes, self._device
        metrics: Metrics = {}
        facts: Facts = {}
        y_train, y_scored = (self._pack.split(split).labels for split in ("train", stage.split))
        if stage.knn:
            labels = torch.from_numpy(y_train), torch.from_numpy(y_scored)
            accuracies = knn_accuracies(train, labels[0], scored, labels[1], classes=classes, ks=stage.knn, device=device)
            metrics |= {f"{name}_knn{k}": accuracy for k, accuracy in accuracies.items()}
            facts["knn"] = list(stage.knn)
        if stage.linear is not None:
            config, seed = stage.linear, self._seed
            result = linear_probe(train, y_train, scored, y_scored, classes=classes, config=config, seed=seed, device=device)
            metrics[f"{name}_linear"] = result.accuracy
            facts |= {
                "linear_lr": result.lr,
                "linear_lr_at_edge": result.at_edge,
                "linear_lrs": list(result.lrs),
                "linear_held_out": list(result.held_out),
                "linear_batch": min(config.batch, len(y_train)),
                "linear_epochs": config.epochs,
            }
        return metrics, facts
