"""The training loop of several stages of one shape: the steps are shared, what is written is each stage's own.

Metrics, checkpoints and snapshots go into each stage's own run directory as if it had run alone; a stage that ends before the
others leaves them, and they go on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from umd_bench.config.trial.fusion_shape import may_fuse
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.batches.batches import Batches
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import deterministic_kernels, pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.fusion.fused_step import FusedStages, Member
from umd_bench.engine.networks.flops import flops_per_image
from umd_bench.engine.training.checkpoint import newest_checkpoint, remove_checkpoints
from umd_bench.engine.training.loop import CHECKPOINTS, RECORDS, Stopped, TrainResult, resume
from umd_bench.engine.training.snapshot import publish_snapshot, snapshot_outcome
from umd_bench.engine.training.state import NonFiniteError, TrainingState
from umd_bench.store.run import Attempt

Ending = TrainResult | Exception
Job = tuple[StageSpec, Attempt]


def standing_together(jobs: Sequence[Job]) -> list[Job]:
    """Those that have seen as many images as most have (of equal numbers, those that have seen more); the others train alone.

    A stage whose end is there, so that it lacks at most an earlier snapshot, stands nowhere.
    """
    places = [_place(spec, attempt) for spec, attempt in jobs]
    counts = Counter(place for place in places if place is not None)
    point = max(counts, key=lambda nimg: (counts[nimg], nimg), default=None)
    return [job for job, place in zip(jobs, places, strict=True) if place is not None and place == point]


def train_fused(
    jobs: Sequence[Job],
    pack: Pack,
    *,
    stop: Callable[[str], bool] = lambda key: False,
    ended: Callable[[str, Ending], None] = lambda key, ending: None,
) -> None:
    """:func:`~umd_bench.engine.training.loop.train` of stages that stand together as one.

    ``stop`` is asked for each stage before each step. ``ended`` is told by key each one's result, or what ended it, as soon as
    it has: one that is stopped (:class:`Stopped`) or whose numbers are lost (:class:`NonFiniteError`) leaves the others.

    Raises ``ValueError`` for stages that may not be fused, and whatever goes wrong in the shared work: then the stages that had
    not ended have no answer.
    """
    if not all(may_fuse(jobs[0][0], spec) for spec, _ in jobs):
        raise ValueError(f"stages of different shapes cannot be trained as one: {[spec.key for spec, _ in jobs]}")
    device = pick_device(jobs[0][0].resources.device)
    with deterministic_kernels(device):
        _train(members_of(jobs, pack, device), ended, stop)


def _missing(stage: TrainStage, attempt: Attempt) -> list[int]:
    return [nimg for nimg in sorted({*stage.snapshots, stage.nimg}) if not attempt.run.snapshot(nimg).exists()]


def _place(spec: StageSpec, attempt: Attempt) -> int | None:
    """How many images the stage has seen; None for one that has seen them all, whether or not a snapshot is missing."""
    stage = spec.stage
    assert isinstance(stage, TrainStage)
    missing = _missing(stage, attempt)
    if stage.nimg not in missing:
        return None
    found = newest_checkpoint(attempt.run.checkpoint_dirs(), at_most=missing[0], warn=lambda message: None)
    return 0 if found is None else found.nimg


def members_of(jobs: Sequence[Job], pack: Pack, device: torch.device) -> list[Member]:
    """The stages as they stand, each with its own attempt; they share the images that lie on the device."""
    members: list[Member] = []
    for number, (spec, attempt) in enumerate(jobs, 1):
        stage = spec.stage
        assert isinstance(stage, TrainStage)
        missing = _missing(stage, attempt)
        state = TrainingState(spec, stage, pack.manifest, attempt.run, device)
        state.fused = f"{number} of {len(jobs)}"
        resumed_from = resume(state, attempt, at_most=missing[0])
        batches = Batches(
            pack.split("train"),
            batch=stage.batch,
            seed=spec.seed,
            purpose=stage.kind,
            augment=stage.augment,
            device=device,
            share_rows_with=members[0].batches if members else None,
        )
        process, generator = NoiseProcess(spec.noise, device), torch.Generator(device)
        members.append(
            Member(spec, stage, attempt, missing, state, resumed_from, batches, process, generator, saved=state.nimg)
        )
    return members


def _train(members: list[Member], ended: Callable[[str, Ending], None], stop: Callable[[str], bool]) -> None:
    """Steps from where all stand to the end; ``ended`` is told what becomes of each stage."""
    fused, stage = FusedStages(members), members[0].stage
    record_every = max(1, stage.n_steps // RECORDS) * stage.batch
    checkpoint_every = stage.checkpoint_every_nimg or max(1, stage.nimg // CHECKPOINTS)
    begun = clocked = members[0].state.nimg
    started = clock = time.perf_counter()
    spent = 0.0  # seconds, a stage's share of the group's

    def for_each(work: Callable[[Member], None]) -> None:
        """Do it for every stage; one that ends by it leaves the others."""
        nonlocal fused
        left = []
        for member in fused.members:
            try:
                work(member)
            except (NonFiniteError, Stopped) as ending:
                ended(member.spec.key, ending)
            else:
                left.append(member)
        if left and len(left) < len(fused.members):
            for member in left:
                fused.settle(member)
            fused = FusedStages(left)
        elif not left:
            fused.members.clear()

    def publish(member: Member) -> None:
        state, nimg = member.state, member.state.nimg
        if nimg not in member.missing:
            return
        state.require_finite()
        speed = (nimg - begun) / spent if spent else 0.0
        outcome = {"metrics": state.final_metrics(), "exact": state.exact, "images_per_second": speed}
        publish_snapshot(member.attempt, nimg, dict(state.model.named_parameters()), state.average_weights(), outcome)

    def save(member: Member) -> None:
        fused.settle(member)
        member.state.save(member.attempt.checkpoints)
        member.saved = member.state.nimg

    def leave_if_stopped(member: Member) -> None:
        if not stop(member.spec.key):
            return
        if member.saved < member.state.nimg:
            save(member)
        raise Stopped(f"stopped after {member.state.nimg} of {member.stage.nimg} images")

    while fused.members:
        for_each(publish)
        if not fused.members:
            return
        nimg = fused.members[0].state.nimg
        if nimg >= stage.nimg:
            break
        for_each(leave_if_stopped)
        if not fused.members:
            return
        now = time.perf_counter()
        rates = dict(zip([member.spec.key for member in fused.members], fused.step(), strict=True))
        spent += (time.perf_counter() - now) / len(fused.members)
        nimg += stage.batch

        if nimg % record_every == 0 or nimg == stage.nimg:
            now = time.perf_counter()
            speed = round(len(fused.members) * (nimg - clocked) / (now - clock), 1)
            clock, clocked = now, nimg

            for_each(partial(_record, rates=rates, speed=speed))
        if nimg // checkpoint_every > (nimg - stage.batch) // checkpoint_every and nimg < stage.nimg:
            for_each(save)
    seconds = (time.perf_counter() - started) / max(1, len(fused.members))
    for member in fused.members:
        remove_checkpoints(member.attempt.run.checkpoint_dirs())
        ended(member.spec.key, _result(member, seconds, trained=stage.nimg - begun))


def _record(member: Member, *, rates: Mapping[str, float], speed: float) -> None:
    metrics, lr = member.state.take_metrics(), rates[member.spec.key]
    member.attempt.event("metrics", nimg=member.state.nimg, **metrics, lr=lr, images_per_second=speed)


def _result(member: Member, seconds: float, *, trained: int) -> TrainResult:
    """``seconds`` is the stage's share of the group's."""
    facts, stage, model = member.spec, member.stage, member.state.model
    classes = 0 if model.label_embed is None else model.label_embed.null
    flops = flops_per_image(facts.model, stage, size=model.side * model.patch, channels=model.channels, classes=classes)
    outcome = snapshot_outcome(member.attempt.run, stage.nimg)
    return TrainResult(
        metrics=outcome["metrics"],
        nimg=stage.nimg,
        flops_per_image=flops,
        seconds=seconds,
        images_per_second=trained / seconds,
        resumed_from=member.resumed_from,
        exact=outcome["exact"],
    )
