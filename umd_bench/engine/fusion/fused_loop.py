"""The training loop of several stages of one shape: they share their steps, and each has its own output.

Metrics, checkpoints and snapshots go into each stage's run directory as if it had run alone. A stage that ends early leaves the
group, and the others continue.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.packs.manifest import Manifest
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import deterministic_kernels, pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.fusion.fused_step import FusedStages, Member
from umd_bench.engine.fusion.shape import may_fuse
from umd_bench.engine.training.checkpoint import newest_checkpoint, remove_checkpoints
from umd_bench.engine.training.loop import (
    Stopped,
    TrainResult,
    checkpoint_interval,
    missing_snapshots,
    record_interval,
    resume,
    train_batches,
    train_result,
    train_stage_of,
)
from umd_bench.engine.training.output import RunOutput
from umd_bench.engine.training.state import NonFiniteError, TrainingState
from umd_bench.store.run import Attempt

Ending = TrainResult | Exception
Job = tuple[StageSpec, Attempt]


def at_the_same_point(jobs: Sequence[Job]) -> list[Job]:
    """The largest group of jobs that have seen equally many images; of equally large groups, the one that has seen most.

    A stage whose final weights are published, and that lacks only earlier snapshots, is in no group.
    """
    seen = [_images_seen(spec, attempt) for spec, attempt in jobs]
    counts = Counter(nimg for nimg in seen if nimg is not None)
    point = max(counts, key=lambda nimg: (counts[nimg], nimg), default=None)
    return [job for job, nimg in zip(jobs, seen, strict=True) if nimg is not None and nimg == point]


def train_fused(
    jobs: Sequence[Job],
    pack: Pack,
    *,
    stop: Callable[[str], bool] = lambda key: False,
    ended: Callable[[str, Ending], None] = lambda key, ending: None,
) -> None:
    """Train several stages together; each gets the output of :func:`~umd_bench.engine.training.loop.train`, up to rounding.

    They must have seen equally many images. ``stop`` is called with each stage's key before each step. As soon as a stage ends,
    ``ended`` is called with its key and its result, or with its key and the exception that ended it. A stage that stops
    (:class:`Stopped`) or is not finite (:class:`NonFiniteError`) leaves the group.

    Raises ``ValueError`` for stages of different shapes, and any error of the shared work; ``ended`` is then not called for the
    stages that were still running.
    """
    if not all(may_fuse(jobs[0][0], spec) for spec, _ in jobs):
        raise ValueError(f"stages of different shapes cannot be fused: {[spec.key for spec, _ in jobs]}")
    device = pick_device(jobs[0][0].resources.device)
    with deterministic_kernels(device):
        _run_steps(members_of(jobs, pack, device), pack.manifest, ended, stop)


def _images_seen(spec: StageSpec, attempt: Attempt) -> int | None:
    """nimg of the checkpoint that the stage would resume from, 0 without one; None if its final weights are published."""
    stage = train_stage_of(spec)
    missing = missing_snapshots(stage, attempt.run)
    if stage.nimg not in missing:
        return None
    checkpoint = newest_checkpoint(attempt.run.checkpoint_dirs(), at_most=missing[0], warn=lambda message: None)
    return 0 if checkpoint is None else checkpoint.nimg


def members_of(jobs: Sequence[Job], pack: Pack, device: torch.device) -> list[Member]:
    """The stages as members of a group, each resumed in its own attempt. They share the images that lie on the device."""
    members: list[Member] = []
    for number, (spec, attempt) in enumerate(jobs, 1):
        stage = train_stage_of(spec)
        missing = missing_snapshots(stage, attempt.run)
        state = TrainingState(spec, stage, pack.manifest, attempt.run, device)
        state.conditions["fused"] = f"{number} of {len(jobs)}"
        resumed_from = resume(state, attempt, at_most=missing[0])
        batches = train_batches(spec, pack, device, share_rows_with=members[0].batches if members else None)
        process, generator = NoiseProcess(spec.noise, device), torch.Generator(device)
        output = RunOutput(attempt)
        members.append(
            Member(spec, stage, attempt, output, missing, state, resumed_from, batches, process, generator, saved=state.nimg)
        )
    return members


def _run_steps(
    members: list[Member], facts: Manifest, ended: Callable[[str, Ending], None], stop: Callable[[str], bool]
) -> None:
    """Steps from the point that all members have reached to the end of the stage."""
    fused, stage = FusedStages(members), members[0].stage
    record_every, checkpoint_every = record_interval(stage), checkpoint_interval(stage)
    begun = clocked = members[0].state.nimg
    started = clock = time.perf_counter()
    spent = 0.0  # one stage's share of the seconds of the group's steps

    def for_each(work: Callable[[Member], None]) -> None:
        """Call ``work`` for every member. A member for which it raises Stopped or NonFiniteError leaves the group."""
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
                fused.write_step_count(member)
            fused = FusedStages(left)
        elif not left:
            fused.members.clear()

    def publish(member: Member) -> None:
        state, nimg = member.state, member.state.nimg
        if nimg not in member.missing:
            return
        state.require_finite()
        member.output.snapshot(state, images_per_second=(nimg - begun) / spent if spent else 0.0)

    def save(member: Member) -> None:
        fused.write_step_count(member)
        member.output.checkpoint(member.state)
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
    seconds = (time.perf_counter() - started) / max(1, len(fused.members))  # one stage's share
    for member in fused.members:
        run = member.attempt.run
        remove_checkpoints(run.checkpoint_dirs())
        trained, resumed_from = stage.nimg - begun, member.resumed_from
        ended(
            member.spec.key,
            train_result(member.spec, facts, run, seconds=seconds, trained=trained, resumed_from=resumed_from),
        )


def _record(member: Member, *, rates: Mapping[str, float], speed: float) -> None:
    metrics = member.state.take_metrics()
    member.output.metrics(member.state, metrics, lr=rates[member.spec.key], images_per_second=speed)
