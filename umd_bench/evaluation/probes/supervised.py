"""The probed architecture trained with labels: its probe indicates the best accuracy that the architecture could reach.

The encoder sees whole clean images (t = 0, no mask), a linear head reads the representation, and AdamW minimises cross-entropy
on the training split. One training serves all stages with the same architecture, data, seed and settings. Its weights are kept
next to the features. A stage that needs them, in this process or another, reads them, or waits while they are being trained.

    <results>/features/<hash>.supervised     SHA-256 and safetensors: model/<parameter>, head/weight, head/bias
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.probe_stage import SupervisedConfig
from umd_bench.config.trial.train_stage import AugmentConfig, CorruptionConfig, OptimConfig, TrainStage
from umd_bench.data.batches.batches import Batches, unaugmented
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import deterministic_kernels
from umd_bench.engine.families import Evaluated
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.training.optim import build_optimizer, learning_rate, set_learning_rate
from umd_bench.evaluation.probes.weights import InitialWeights
from umd_bench.evaluation.storage.arrays import load_or_compute
from umd_bench.evaluation.storage.cache_names import cache_name, numeric_environment

_VERSION = 1  # goes up when the same settings would give other weights
_CLIP_NORM = 1.0
_ROWS = 500  # images classified at once


class SupervisedWeights:
    """The weights after training with labels on the training split of ``pack``, from the ``initial`` weights.

    The training happens when the weights are first needed. ``folder`` keeps them.
    """

    def __init__(
        self, initial: InitialWeights, config: SupervisedConfig, pack: Pack, seed: int, folder: Path, device: torch.device
    ) -> None:
        self._initial, self._config, self._pack, self._seed = initial, config, pack, seed
        self._folder, self._device = folder, device

    @property
    def identity(self) -> list[Any]:
        """Initial weights, data, settings and seed; and device kind, threads and torch, which change the last bits."""
        here, fields = numeric_environment(self._device), self._config.model_dump(mode="json")
        return ["supervised", _VERSION, self._initial.identity, self._pack.manifest.digest, fields, self._seed, *here]

    def empty(self) -> Evaluated:
        """The model without values, on the meta device."""
        return self._initial.empty()

    def model(self, device: torch.device) -> Evaluated:
        """The trained model. Raises :class:`UserError` if its weights are not finite."""
        model = self._initial.model(device)
        model.load_state_dict({name: value.to(device) for name, value in self._part("model/").items()})
        return model

    @torch.inference_mode()
    def head_accuracy(self, split: str) -> float:
        """The share of images of ``split``, in [0, 1], that the head of the training classifies correctly."""
        model, head, images = self.model(self._device), self._part("head/"), self._pack.split(split)
        correct = 0
        for start in range(0, len(images), _ROWS):
            x_0 = unaugmented(images, slice(start, start + _ROWS)).to(self._device)
            logits = F.linear(_represent(model, x_0), head["weight"].to(self._device), head["bias"].to(self._device))
            correct += int((logits.argmax(1).cpu() == torch.from_numpy(images.labels[start : start + _ROWS])).sum())
        return correct / len(images)

    def train(self) -> dict[str, Tensor]:
        """Train now, and keep nothing in the folder. Returns the weights by name, on the CPU.

        Raises :class:`UserError` if they are not finite.
        """
        config, device = self._config, self._device
        stage = TrainStage(
            kind="pretrain",
            nimg=config.nimg,
            batch=config.batch,
            corruption=CorruptionConfig(r_t0=1),
            optim=OptimConfig(
                lr_per_256=config.lr_per_256, warmup_nimg=config.warmup_nimg, weight_decay=config.weight_decay, beta2=0.999
            ),
        )
        split = self._pack.split("train")
        # Gradients may be off here, because the caller computes features.
        with deterministic_kernels(device), torch.inference_mode(mode=False), torch.enable_grad():
            model = self._initial.model(device).train().requires_grad_()
            head = self._initial_head(model.patch_embed.proj.out_channels, device)
            both = nn.ModuleDict({"model": model, "head": head})
            optimizer = build_optimizer(both, stage.optim)
            batches = Batches(
                split, batch=config.batch, seed=self._seed, purpose="supervised", augment=AugmentConfig(), device=device
            )
            for nimg in range(0, config.nimg, config.batch):
                x_0, label = batches.at(nimg)
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(head(_represent(model, x_0)), label))
                nn.utils.clip_grad_norm_(both.parameters(), _CLIP_NORM)
                set_learning_rate(optimizer, learning_rate(nimg, stage))
                optimizer.step()
        tensors = {f"model/{name}": value.detach().cpu() for name, value in model.state_dict().items()}
        tensors |= {f"head/{name}": value.detach().cpu() for name, value in head.state_dict().items()}
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            rate = config.lr_per_256
            raise UserError(
                f"the training with labels ended in weights that are not finite: lower supervised.lr_per_256, which is {rate}"
            )
        return tensors

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in self._tensors.items() if name.startswith(prefix)}

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        """The trained weights, from the folder if they are there; one process trains, and others wait for it."""
        path = self._folder / f"{cache_name(self.identity)}.supervised"
        with _locked(path):
            arrays = load_or_compute(path, lambda: {name: value.numpy() for name, value in self.train().items()})
            with suppress(OSError):
                os.utime(path)  # marks it as recently used
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _initial_head(self, width: int, device: torch.device) -> nn.Linear:
        """The head before training. Its weight is random, not 0, because with adaLN-zero the representation is 0 at first.

        If both were 0, neither the encoder nor the weight would ever get a gradient.
        """
        head = nn.Linear(width, len(self._pack.manifest.class_names))
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "supervised/head", 0))
        nn.init.normal_(head.weight, std=0.02, generator=generator)
        nn.init.zeros_(head.bias)
        return head.to(device)


def _represent(model: Evaluated, x_0: Tensor) -> Tensor:
    """The representation of clean images at the last block. [B, C, H, W] -> [B, D]."""
    assert isinstance(model, AutoEncoder)
    return model.represent(x_0, torch.zeros(len(x_0), dtype=torch.int64, device=x_0.device))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path``. If the folder cannot be written, take none: each process then trains its own weights."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
