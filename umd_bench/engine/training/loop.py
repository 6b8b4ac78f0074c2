"""Training: one readable loop, exact under interruption.

Every step's data and randomness are functions of (seed, images seen), and a checkpoint holds everything that is carried from
step to step. So a run that was killed at any moment resumes to the same bits, if the kind and number of devices, the torch
version and the number of threads are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.batches.batches import Batches
from umd_bench.data.packs.manifest import Manifest
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import deterministic_kernels
from umd_bench.engine.diffusion.corruption import draw_noise
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.diffusion.objective import umd_loss
from umd_bench.engine.networks.flops import flops_per_image
from umd_bench.engine.training.checkpoint import changes, newest_checkpoint, remove_checkpoints
from umd_bench.engine.training.compiling import own_graphs
from umd_bench.engine.training.optim import clip_grad_norm, learning_rate, set_learning_rate
from umd_bench.engine.training.output import NoOutput, RunOutput, TrainingOutput
from umd_bench.engine.training.parallel import SINGLE_DEVICE, DataParallel, RankGroup
from umd_bench.engine.training.snapshot import snapshot_outcome
from umd_bench.engine.training.state import TrainingState
from umd_bench.store.run import Attempt, RunDir

RECORDS = 100  # metrics events in a stage
CHECKPOINTS = 10  # in a stage, unless its config sets the interval


class Stopped(Exception):  # noqa: N818 - a state, not a fault
    """Training stopped on request; its state is saved."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a training stage. ``metrics`` are means over the last tenth of the stage."""

    metrics: dict[str, float]
    nimg: int
    flops_per_image: float  # forward and backward
    seconds: float  # of training in this attempt
    images_per_second: float
    resumed_from: int | None  # nimg of the checkpoint; None for a start from the beginning
    exact: bool  # whether every step ran on the same device kind, torch version, number of threads and of devices


def train(
    spec: StageSpec,
    pack: Pack,
    attempt: Attempt,
    *,
    stop: Callable[[], bool] = lambda: False,
    parallel: DataParallel = SINGLE_DEVICE,
) -> TrainResult:
    """Run a training stage to its end, from the newest sound checkpoint of any attempt, and publish its snapshots.

    ``stop`` is called before each step. Training resumes from a checkpoint that is not later than the first missing snapshot,
    and ends at the last missing one. On several devices, ``parallel`` is rank 0's group and the other ranks call
    :func:`follow`.

    Raises :class:`Stopped` after saving the state, :class:`NonFiniteError` if loss, gradient or weights are not finite,
    :class:`UserError` if the parent's weights are missing, and :class:`~umd_bench.engine.training.parallel.RankLost` if another
    rank is gone.
    """
    stage = train_stage_of(spec)
    missing = missing_snapshots(stage, attempt.run)
    parallel.send_missing(missing)
    resumed_from, seconds, trained = None, 0.0, 0
    if missing:
        device = parallel.device(spec.resources.device)
        with deterministic_kernels(device), _graphs(spec):
            state = TrainingState(spec, stage, pack.manifest, attempt.run, device, parallel.size)
            resumed_from = resume(state, attempt, at_most=missing[0])
            parallel.send_state(state, warn=lambda message: attempt.event("warning", message=message))
            begun, started = state.nimg, time.perf_counter()
            _run_steps(state, spec, pack, missing, stop, RunOutput(attempt), parallel)
            seconds, trained = time.perf_counter() - started, state.nimg - begun
        remove_checkpoints(attempt.run.checkpoint_dirs())
    return train_result(spec, pack.manifest, attempt.run, seconds=seconds, trained=trained, resumed_from=resumed_from)


def follow(spec: StageSpec, pack: Pack, run: RunDir, group: RankGroup, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Train on a rank other than rank 0: the same steps as in :func:`train` on rank 0, from the state that rank 0 sends.

    Writes nothing. If ``stop`` returns true on any rank, all ranks stop. Raises as :func:`train`.
    """
    stage = train_stage_of(spec)
    missing = group.receive_missing()
    if not missing:
        return
    device = group.device(spec.resources.device)
    with deterministic_kernels(device), _graphs(spec):
        state = TrainingState(spec, stage, pack.manifest, run, device, group.size)
        group.receive_state(state)
        _run_steps(state, spec, pack, missing, stop, NoOutput(), group)


def _run_steps(
    state: TrainingState,
    spec: StageSpec,
    pack: Pack,
    missing: list[int],
    stop: Callable[[], bool],
    output: TrainingOutput,
    parallel: DataParallel,
) -> None:
    """Steps from ``state.nimg`` to the last of ``missing``, with metrics, checkpoints and snapshots on the way."""
    stage, device = state.stage, state.device
    batches, process, generator = train_batches(spec, pack, device), NoiseProcess(spec.noise, device), torch.Generator(device)
    record_every, checkpoint_every = record_interval(stage), checkpoint_interval(stage)
    saved = clocked = begun = state.nimg
    started = clock = time.perf_counter()

    while True:
        nimg = state.nimg
        if nimg in missing:
            state.require_finite()
            parallel.require_same_weights(state.model)
            output.snapshot(state, images_per_second=(nimg - begun) / (time.perf_counter() - started))
        if nimg >= missing[-1]:
            return
        if parallel.any(stop()):
            if saved < nimg:
                output.checkpoint(state)
            raise Stopped(f"stopped after {nimg} of {stage.nimg} images")

        x_0, label = batches.at(nimg)
        lr = training_step(state, spec, process, generator, x_0, label, parallel)
        nimg = state.nimg

        if nimg % record_every == 0 or nimg == stage.nimg:
            metrics = state.take_metrics()
            now = time.perf_counter()
            output.metrics(state, metrics, lr=lr, images_per_second=round((nimg - clocked) / (now - clock), 1))
            clock, clocked = now, nimg
        if nimg // checkpoint_every > (nimg - stage.batch) // checkpoint_every and nimg < missing[-1]:
            parallel.require_same_weights(state.model)
            output.checkpoint(state)
            saved = nimg


def training_step(
    state: TrainingState,
    spec: StageSpec,
    process: NoiseProcess,
    generator: torch.Generator,
    x_0: Tensor,
    label: Tensor,
    parallel: DataParallel = SINGLE_DEVICE,
) -> float:
    """One optimiser step on the batch after ``state.nimg`` images, counted in ``state``; returns its learning rate.

    ``x_0`` float32 [B, C, H, W] and ``label`` int64 [B], as :meth:`Batches.at` returns them. On several devices each rank is
    given the whole batch and computes its share. With one device the host never waits for it.
    """
    stage, nimg, model = state.stage, state.nimg, state.model
    state.optimizer.zero_grad()  # before the forward pass, which may reuse the gradients' memory if it replays a CUDA graph
    generator.manual_seed(derive_seed(spec.seed, f"{stage.kind}/noise", nimg))
    noise = draw_noise(x_0, model.n_patches, process, generator)
    x_0, noise, label, n_clean = parallel.share(x_0, noise, label, stage)
    with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=stage.precision == "bf16"):
        known = label if stage.labels else None
        losses = umd_loss(model, x_0, noise, stage, process, known, n_clean=n_clean, forward=state.forward)
    losses = parallel.backward(model, losses, stage)
    grad_norm = clip_grad_norm(model, stage.optim.clip_norm)
    lr = learning_rate(nimg, stage)
    set_learning_rate(state.optimizer, lr)
    state.optimizer.step()
    if state.average is not None:
        state.average.update()
    state.count(losses, grad_norm)
    return lr


def resume(state: TrainingState, attempt: Attempt, *, at_most: int) -> int | None:
    """Load the newest sound checkpoint of nimg <= ``at_most`` into ``state``; returns its nimg, or None if there is none."""
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


def train_stage_of(spec: StageSpec) -> TrainStage:
    """The training stage of ``spec``. Raises :class:`UserError` for a stage or a model family that is not trained here."""
    if not isinstance(spec.stage, TrainStage):
        raise UserError(f"a {spec.kind} stage trains nothing: expected a pretrain or finetune stage")
    spec.model.require_own("trained")
    return spec.stage


def missing_snapshots(stage: TrainStage, run: RunDir) -> list[int]:
    """nimg of each snapshot that is not in the run directory, ascending. The end of the stage is also a snapshot."""
    return [nimg for nimg in sorted({*stage.snapshots, stage.nimg}) if not run.snapshot(nimg).exists()]


def train_batches(spec: StageSpec, pack: Pack, device: torch.device, *, share_rows_with: Batches | None = None) -> Batches:
    """The batches of a training stage; ``share_rows_with`` as in :class:`Batches`."""
    stage = train_stage_of(spec)
    return Batches(
        pack.split("train"),
        batch=stage.batch,
        seed=spec.seed,
        purpose=stage.kind,
        augment=stage.augment,
        device=device,
        share_rows_with=share_rows_with,
    )


def record_interval(stage: TrainStage) -> int:
    """Images between two metrics events, a multiple of the batch."""
    return max(1, stage.n_steps // RECORDS) * stage.batch


def checkpoint_interval(stage: TrainStage) -> int:
    """Images between two checkpoints."""
    return stage.checkpoint_every_nimg or max(1, stage.nimg // CHECKPOINTS)


def train_result(
    spec: StageSpec, facts: Manifest, run: RunDir, *, seconds: float, trained: int, resumed_from: int | None
) -> TrainResult:
    """The report of a stage whose last snapshot is published, after ``trained`` images in ``seconds`` of this attempt."""
    stage = train_stage_of(spec)
    classes = len(facts.class_names) if stage.labels else 0
    outcome = snapshot_outcome(run, stage.nimg)
    return TrainResult(
        metrics=outcome["metrics"],
        nimg=stage.nimg,
        flops_per_image=flops_per_image(spec.model, stage, size=facts.size, channels=facts.channels, classes=classes),
        seconds=seconds,
        images_per_second=trained / seconds if trained else outcome["images_per_second"],
        resumed_from=resumed_from,
        exact=outcome["exact"],
    )


def _graphs(spec: StageSpec) -> AbstractContextManager[None]:
    """A context for the training of a stage. At its end, the code of a compiled stage is freed."""
    return own_graphs() if spec.resources.compile else nullcontext()
