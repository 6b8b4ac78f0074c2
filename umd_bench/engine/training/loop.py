"""Training: one readable loop, exact under interruption.

Every step's data and randomness are functions of (seed, images seen), and a checkpoint holds all that is carried from step to
step, so a run that was killed anywhere goes on to the same bits on the same kind of device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.batches.batches import Batches
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import deterministic_kernels, pick_device
from umd_bench.engine.diffusion.corruption import draw_noise
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.diffusion.objective import umd_loss
from umd_bench.engine.networks.flops import flops_per_image
from umd_bench.engine.training.checkpoint import (
    changes,
    newest_checkpoint,
    pack_checkpoint,
    remove_checkpoints,
    unpack_checkpoint,
)
from umd_bench.engine.training.compiling import own_graphs
from umd_bench.engine.training.optim import clip_grad_norm, learning_rate, set_learning_rate
from umd_bench.engine.training.parallel import Group
from umd_bench.engine.training.snapshot import publish_snapshot, snapshot_outcome
from umd_bench.engine.training.state import TrainingState
from umd_bench.store.run import Attempt, RunDir

RECORDS = 100  # metrics events a stage
CHECKPOINTS = 10  # a stage, unless its config says how often


class Stopped(Exception):  # noqa: N818 - a state, not a fault
    """Training was asked to stop; its state is saved."""


@dataclass(frozen=True)
class TrainResult:
    """What a training stage reports. ``metrics`` are means over the last tenth of the stage."""

    metrics: dict[str, float]
    nimg: int
    flops_per_image: float  # forward and backward
    seconds: float  # of training in this attempt
    images_per_second: float
    resumed_from: int | None  # nimg of the checkpoint, None for a start from the beginning
    exact: bool  # nothing was resumed under another device kind, torch version, number of threads or of devices


def train(
    spec: StageSpec, pack: Pack, attempt: Attempt, *, stop: Callable[[], bool] = lambda: False, group: Group | None = None
) -> TrainResult:
    """Run a training stage to its end, from the newest sound checkpoint of any attempt, and publish its snapshots.

    ``stop`` is asked before each step. Only what is missing is trained: up to the last snapshot that is not there yet, from
    a checkpoint not later than the first. In a ``group`` this is rank 0, and the other ranks are in :func:`follow`.

    Raises :class:`Stopped` after saving the state, :class:`NonFiniteError` where loss, gradient or weights are no numbers,
    :class:`UserError` where the parent's weights are missing, and :class:`~umd_bench.engine.training.parallel.RankLost` where
    another
    rank is gone.
    """
    stage = _train_stage(spec)
    facts = pack.manifest
    classes = len(facts.class_names) if stage.labels else 0
    flops = flops_per_image(spec.model, stage, size=facts.size, channels=facts.channels, classes=classes)
    missing = [n for n in sorted({*stage.snapshots, stage.nimg}) if not attempt.run.snapshot(n).exists()]
    resumed_from, seconds, trained = None, 0.0, 0
    if group is not None:
        group.hand_out(json.dumps(missing).encode())
    if missing:
        device = pick_device(spec.resources.device) if group is None else group.device
        with deterministic_kernels(device), own_graphs() if spec.resources.compile else nullcontext():
            state = TrainingState(spec, stage, facts, attempt.run, device, 1 if group is None else group.size)
            resumed_from = resume(state, attempt, at_most=missing[0])
            if group is not None:
                _hand_out(state, attempt, group)
            begun, started = state.nimg, time.perf_counter()
            _train(state, spec, stage, pack, attempt, missing, stop, group)
            seconds, trained = time.perf_counter() - started, state.nimg - begun
        remove_checkpoints(attempt.run.checkpoint_dirs())
    outcome = snapshot_outcome(attempt.run, stage.nimg)
    return TrainResult(
        metrics=outcome["metrics"],
        nimg=stage.nimg,
        flops_per_image=flops,
        seconds=seconds,
        images_per_second=trained / seconds if trained else outcome["images_per_second"],
        resumed_from=resumed_from,
        exact=outcome["exact"],
    )


def follow(spec: StageSpec, pack: Pack, run: RunDir, group: Group, *, stop: Callable[[], bool] = lambda: False) -> None:
    """What a rank other than 0 does while rank 0 is in :func:`train`: the same steps, from the state that rank 0 gives.

    It writes nothing. A ``stop`` that is asked of it stops all. Raises as :func:`train`.
    """
    stage = _train_stage(spec)
    missing = json.loads(group.hand_out(None))
    if not missing:
        return
    with deterministic_kernels(group.device), own_graphs() if spec.resources.compile else nullcontext():
        state = TrainingState(spec, stage, pack.manifest, run, group.device, group.size)
        checkpoint = unpack_checkpoint(group.hand_out(None))
        group.any(checkpoint.fingerprint != state.fingerprint())
        state.restore(checkpoint)
        _train(state, spec, stage, pack, None, missing, stop, group)


def _train_stage(spec: StageSpec) -> TrainStage:
    if not isinstance(spec.stage, TrainStage):
        raise UserError(f"a {spec.kind} stage trains nothing: expected a pretrain or finetune stage")
    spec.model.require_own("trained")
    return spec.stage


def _train(
    state: TrainingState,
    spec: StageSpec,
    stage: TrainStage,
    pack: Pack,
    attempt: Attempt | None,
    missing: list[int],
    stop: Callable[[], bool],
    group: Group | None,
) -> None:
    """Steps from ``state.nimg`` to the last of ``missing``, with records, checkpoints and snapshots on the way.

    ``attempt`` is None on a rank other than 0, which does all but write.
    """
    device, model = state.device, state.model
    batches = Batches(
        pack.split("train"), batch=stage.batch, seed=spec.seed, purpose=stage.kind, augment=stage.augment, device=device
    )
    process = NoiseProcess(spec.noise, device)
    generator = torch.Generator(device)
    record_every = max(1, stage.n_steps // RECORDS) * stage.batch
    checkpoint_every = stage.checkpoint_every_nimg or max(1, stage.nimg // CHECKPOINTS)
    saved = clocked = begun = state.nimg
    started = clock = time.perf_counter()

    while True:
        nimg = state.nimg
        if nimg in missing:
            state.require_finite()
            if group is not None:
                group.require_alike(model)
            speed = (nimg - begun) / (time.perf_counter() - started)
            outcome = {"metrics": state.final_metrics(), "exact": state.exact, "images_per_second": speed}
            if attempt is not None:
                publish_snapshot(attempt, nimg, dict(model.named_parameters()), state.average_weights(), outcome)
        if nimg >= missing[-1]:
            return
        if stop() if group is None else group.any(stop()):
            if saved < nimg and attempt is not None:
                state.save(attempt.checkpoints)
            raise Stopped(f"stopped after {nimg} of {stage.nimg} images")

        x_0, label = batches.at(nimg)
        lr = training_step(state, spec, process, generator, x_0, label, group)
        nimg = state.nimg

        if nimg % record_every == 0 or nimg == stage.nimg:
            metrics = state.take_metrics()
            now = time.perf_counter()
            if attempt is not None:
                speed = round((nimg - clocked) / (now - clock), 1)
                attempt.event("metrics", nimg=nimg, **metrics, lr=lr, images_per_second=speed)
            clock, clocked = now, nimg
        if nimg // checkpoint_every > (nimg - stage.batch) // checkpoint_every and nimg < missing[-1]:
            if group is not None:
                group.require_alike(model)
            if attempt is not None:
                state.save(attempt.checkpoints)
            saved = nimg


def training_step(
    state: TrainingState,
    spec: StageSpec,
    process: NoiseProcess,
    generator: torch.Generator,
    x_0: Tensor,
    label: Tensor,
    group: Group | None = None,
) -> float:
    """One optimiser step on the batch after ``state.nimg`` images, counted in ``state``; the learning rate it was made with.

    ``x_0`` float32 [B, C, H, W] and ``label`` int64 [B], as :meth:`Batches.at` gives them. In a ``group`` each rank is given
    the whole batch and computes its share. Nothing waits for the device.
    """
    stage, nimg, model = state.stage, state.nimg, state.model
    state.optimizer.zero_grad()  # before the forward pass, whose replay as a CUDA graph takes the memory they may lie in
    generator.manual_seed(derive_seed(spec.seed, f"{stage.kind}/noise", nimg))
    noise = draw_noise(x_0, model.n_patches, process, generator)
    n_clean = stage.n_clean
    if group is not None:
        x_0, noise, label, n_clean = group.rows(x_0, noise, label, stage)
    with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=stage.precision == "bf16"):
        known = label if stage.labels else None
        losses = umd_loss(model, x_0, noise, stage, process, known, n_clean=n_clean, forward=state.forward)
    torch.autograd.backward(losses.loss if group is None else losses.loss * (len(x_0) / stage.batch))
    if group is not None:
        losses = group.sum(model, losses, stage)
    grad_norm = clip_grad_norm(model, stage.optim.clip_norm)
    lr = learning_rate(nimg, stage)
    set_learning_rate(state.optimizer, lr)
    state.optimizer.step()
    if state.average is not None:
        state.average.update()
    state.count(losses, grad_norm)
    return lr


def resume(state: TrainingState, attempt: Attempt, *, at_most: int) -> int | None:
    """Put the newest sound checkpoint into ``state``; its nimg, or None where there is none."""
    checkpoint = newest_checkpoint(
        attempt.run.checkpoint_dirs(), at_most=at_most, warn=lambda message: attempt.event("warning", message=message)
    )
    if checkpoint is None:
        return None
    state.restore(checkpoint)
    changed = changes(checkpoint.fingerprint, state.fingerprint())
    if changed:
        state.exact = False
        message = f"resumed at nimg = {checkpoint.nimg} in another environment ({', '.join(changed)}): the result is not exact"
        attempt.event("warning", message=message)
    attempt.event("resumed", nimg=checkpoint.nimg, exact=state.exact)
    return checkpoint.nimg


def _hand_out(state: TrainingState, attempt: Attempt, group: Group) -> None:
    """Give every rank the state of this one; where they are not of one kind, no other set of devices gives the same bits."""
    group.hand_out(pack_checkpoint(state.checkpoint()))
    if group.any(False):
        state.exact = False
        attempt.event("warning", message="the devices of this stage are not of one kind: the result is not exact")
