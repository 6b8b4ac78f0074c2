"""All that training carries from one step to the next: weights, moments, average, running sums, images seen."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.packs.manifest import Manifest
from umd_bench.engine.diffusion.objective import Forward, Losses, forward_passes
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.training.checkpoint import Checkpoint, fingerprint, save_checkpoint
from umd_bench.engine.training.compiling import compiled
from umd_bench.engine.training.ema import WeightAverage
from umd_bench.engine.training.optim import build_optimizer, optimizer_tensors, restore_optimizer
from umd_bench.engine.training.snapshot import load_snapshot
from umd_bench.store.run import RunDir

_FRESH = "label_embed."  # what a parent that knew no labels cannot give


class NonFiniteError(Exception):
    """Loss, gradient or weights are infinite or not numbers."""


class TrainingState:
    """The state of a stage after ``nimg`` images; at the beginning, initial weights or the parent's.

    Raises :class:`UserError` where the parent's weights are missing.
    """

    def __init__(
        self, spec: StageSpec, stage: TrainStage, facts: Manifest, run: RunDir, device: torch.device, world_size: int = 1
    ) -> None:
        self.stage, self.device, self._world_size, self._compiled = stage, device, world_size, spec.resources.compile
        self.nimg, self.exact = 0, True
        self.fused: str | None = None  # its place among stages that are trained as one, "2 of 5"
        self.model = _initial_model(spec, stage, facts, run, device)
        self.forward: Forward = compiled(forward_passes, device) if self._compiled else forward_passes
        self.optimizer = build_optimizer(self.model, stage.optim)
        self.average = WeightAverage(self.model, stage.ema_decay) if stage.optim.ema else None
        # Sums of loss, loss_t0, loss_t, grad_norm and steps: since the last record; over the last tenth of the stage.
        self._sums = torch.zeros(2, 5, dtype=torch.float64, device=device)

    def count(self, losses: Losses, grad_norm: Tensor) -> None:
        """A step is done. Everything stays on the device."""
        step = torch.stack([*losses, grad_norm, torch.ones_like(grad_norm)]).detach()
        self._sums[0] += step
        if 10 * self.nimg >= 9 * self.stage.nimg:
            self._sums[1] += step
        self.nimg += self.stage.batch

    def take_metrics(self) -> dict[str, float]:
        """Means since this was last called, and the check that they are numbers."""
        self._require_finite_sums()
        means = self._means(0)
        self._sums[0] = 0
        return means

    def final_metrics(self) -> dict[str, float]:
        """Means over the last tenth of the stage, as far as it has come; empty before it."""
        return {f"{name}_final": value for name, value in self._means(1).items() if name != "grad_norm"}

    def average_weights(self) -> dict[str, Tensor] | None:
        """The weight average by parameter name, or None where none is kept."""
        return None if self.average is None else self.average.weights

    def require_finite(self) -> None:
        """Raise :class:`NonFiniteError` unless losses, gradients and weights are numbers."""
        self._require_finite_sums()
        if not torch.stack(torch._foreach_norm(list(self.model.parameters()))).isfinite().all():
            raise NonFiniteError(f"weights are not finite after {self.nimg} images")

    def save(self, folder: Path) -> None:
        """Write a checkpoint; state that is not finite is refused with :class:`NonFiniteError`."""
        self.require_finite()
        save_checkpoint(folder, self.checkpoint())

    def checkpoint(self) -> Checkpoint:
        """All of it, as it is now."""
        tensors = {f"model/{name}": p.detach() for name, p in self.model.named_parameters()}
        tensors |= {f"optimizer/{name}": value for name, value in optimizer_tensors(self.optimizer, self.model).items()}
        tensors |= {f"ema/{name}": value for name, value in (self.average_weights() or {}).items()}
        return Checkpoint(self.nimg, {**tensors, "sums": self._sums}, self.fingerprint(), self.exact)

    def fingerprint(self) -> dict[str, str]:
        """What computes it here."""
        how = {} if self.fused is None else {"fused": self.fused}
        if self._compiled:
            how["compiled"] = "yes"
        return fingerprint(self.device, self._world_size) | how

    def restore(self, checkpoint: Checkpoint) -> None:
        """The inverse of :meth:`checkpoint`."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "ema": {}, "sums": {}}
        for key, value in checkpoint.tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        self.model.load_state_dict(parts["model"])
        restore_optimizer(self.optimizer, self.model, parts["optimizer"])
        if self.average is not None:
            self.average = WeightAverage(self.model, self.stage.ema_decay, parts["ema"])
        self._sums = parts["sums"][""].to(self.device)
        self.nimg, self.exact = checkpoint.nimg, checkpoint.exact

    def _means(self, row: int) -> dict[str, float]:
        """Means of one row of the sums; a group without images has none."""
        loss, loss_t0, loss_t, grad_norm, steps = self._sums[row].tolist()
        if not steps:
            return {}
        means = {"loss": loss / steps}
        if self.stage.n_clean:
            means["loss_t0"] = loss_t0 / steps
        if self.stage.n_clean < self.stage.batch:
            means["loss_t"] = loss_t / steps
        return {**means, "grad_norm": grad_norm / steps}

    def _require_finite_sums(self) -> None:
        if not self._sums.isfinite().all():
            raise NonFiniteError(f"loss or gradient is not finite after {self.nimg} images")


def _initial_model(spec: StageSpec, stage: TrainStage, facts: Manifest, run: RunDir, device: torch.device) -> AutoEncoder:
    """Initial weights, or the parent's raw weights; the label embedding is the parent's only if both know labels."""
    classes = len(facts.class_names) if stage.labels else 0
    model = build_model(spec.model, size=facts.size, channels=facts.channels, classes=classes, seed=spec.seed, device=device)
    if spec.parent_key is None:
        return model
    if spec.parent_nimg is None:
        raise UserError(f"the stage names its parent {spec.parent_key} but not which of its snapshots")
    fresh = model.state_dict()
    trained = load_snapshot(RunDir(run.root, spec.parent_key), spec.parent_nimg)
    kept = {name: value for name, value in trained.items() if name in fresh or not name.startswith(_FRESH)}
    model.load_state_dict({**{name: value for name, value in fresh.items() if name.startswith(_FRESH)}, **kept})
    return model
