"""Everything that training carries from step to step: weights, moments, average, running sums, images seen."""

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
from umd_bench.engine.networks.initialise import initial_model
from umd_bench.engine.training.checkpoint import Checkpoint, fingerprint, save_checkpoint
from umd_bench.engine.training.compiling import compiled
from umd_bench.engine.training.ema import WeightAverage
from umd_bench.engine.training.optim import build_optimizer, optimizer_tensors, restore_optimizer
from umd_bench.engine.training.snapshot import load_snapshot
from umd_bench.store.run import RunDir

_LABELS = "label_embed."  # parameters that only a model trained with labels has


class NonFiniteError(Exception):
    """Loss, gradient or weights are infinite or NaN."""


class TrainingState:
    """The state of a stage after ``nimg`` images. It starts with initial weights, or with the parent's weights.

    ``conditions`` are further entries of the fingerprint; a training loop may add entries. ``exact`` is False if any step was
    computed under another fingerprint.

    Raises :class:`UserError` if the parent's weights are missing.
    """

    def __init__(
        self, spec: StageSpec, stage: TrainStage, facts: Manifest, run: RunDir, device: torch.device, world_size: int = 1
    ) -> None:
        self.stage, self.device, self._world_size = stage, device, world_size
        self.nimg, self.exact = 0, True
        self.conditions = {"compiled": "yes"} if spec.resources.compile else {}
        self.model = _first_model(spec, facts, run, device)
        self.forward: Forward = compiled(forward_passes, device) if spec.resources.compile else forward_passes
        self.optimizer = build_optimizer(self.model, stage.optim)
        self.average = WeightAverage(self.model, stage.ema_decay) if stage.optim.ema else None
        # Sums of loss, loss_t0, loss_t, grad_norm and steps. Row 0: since the last record. Row 1: over the stage's last tenth.
        self._sums = torch.zeros(2, 5, dtype=torch.float64, device=device)

    def count(self, losses: Losses, grad_norm: Tensor) -> None:
        """Add a finished step to the sums, on the device, and its batch to ``nimg``."""
        step = torch.stack([*losses, grad_norm, torch.ones_like(grad_norm)]).detach()
        self._sums[0] += step
        if 10 * self.nimg >= 9 * self.stage.nimg:
            self._sums[1] += step
        self.nimg += self.stage.batch

    def take_metrics(self) -> dict[str, float]:
        """Means since the last call. Raises :class:`NonFiniteError` if a sum is not finite."""
        self._require_finite_sums()
        means = self._means(0)
        self._sums[0] = 0
        return means

    def final_metrics(self) -> dict[str, float]:
        """Means over the finished steps of the stage's last tenth; empty before the last tenth begins."""
        return {f"{name}_final": value for name, value in self._means(1).items() if name != "grad_norm"}

    def average_weights(self) -> dict[str, Tensor] | None:
        """The weight average by parameter name, or None without one."""
        return None if self.average is None else self.average.weights

    def require_finite(self) -> None:
        """Raise :class:`NonFiniteError` unless losses, gradients and weights are finite."""
        self._require_finite_sums()
        if not torch.stack(torch._foreach_norm(list(self.model.parameters()))).isfinite().all():
            raise NonFiniteError(f"weights are not finite after {self.nimg} images")

    def save(self, folder: Path) -> None:
        """Write a checkpoint into ``folder``. Raises :class:`NonFiniteError` if the state is not finite."""
        self.require_finite()
        save_checkpoint(folder, self.checkpoint())

    def checkpoint(self) -> Checkpoint:
        """The current state."""
        tensors = {f"model/{name}": p.detach() for name, p in self.model.named_parameters()}
        tensors |= {f"optimizer/{name}": value for name, value in optimizer_tensors(self.optimizer, self.model).items()}
        tensors |= {f"ema/{name}": value for name, value in (self.average_weights() or {}).items()}
        return Checkpoint(self.nimg, {**tensors, "sums": self._sums}, self.fingerprint(), self.exact)

    def fingerprint(self) -> dict[str, str]:
        """The facts that must be equal for equal bits: :func:`checkpoint.fingerprint` and the conditions."""
        return fingerprint(self.device, self._world_size) | self.conditions

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
        """Means of one row of the sums, without the loss of a group that has no images."""
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


def _first_model(spec: StageSpec, facts: Manifest, run: RunDir, device: torch.device) -> AutoEncoder:
    """Initial weights, or the parent's weights (not their average). The label embedding is the parent's if both have one."""
    classes = len(facts.class_names)
    model = initial_model(spec, size=facts.size, channels=facts.channels, classes=classes, device=device)
    if spec.parent_key is None:
        return model
    if spec.parent_nimg is None:
        raise UserError(f"the stage names its parent {spec.parent_key} but no snapshot of it")
    initial = model.state_dict()
    parents = load_snapshot(RunDir(run.root, spec.parent_key), spec.parent_nimg)
    taken = {name: value for name, value in parents.items() if name in initial or not name.startswith(_LABELS)}
    model.load_state_dict({**{name: value for name, value in initial.items() if name.startswith(_LABELS)}, **taken})
    return model
