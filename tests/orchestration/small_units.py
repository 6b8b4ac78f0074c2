"""Stages of one shape, which can be trained together: ten steps each, on the digits."""

from __future__ import annotations

from pathlib import Path

from orchestration.small import SMALL, write_small

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.store import RunDir

END = 640


def seeds_of_one_shape(folder: Path, seeds: int, *sets: str) -> list[StageSpec]:
    """Pre-training stages with ``seeds`` different seeds."""
    text = SMALL.replace("mask_ratio: [0.25, 0.5]", "mask_ratio: [0.25]")
    sweep = load_sweep(write_small(folder, text), sets=[f"seeds={[*range(seeds)]}", *sets])
    return [trial.specs["pretrain"] for trial in sweep.trials]


def prepare(root: Path, specs: list[StageSpec]) -> list[str]:
    """Create the run directories of the stages; returns their keys."""
    for spec in specs:
        RunDir(root, spec.key).prepare(spec)
    return [spec.key for spec in specs]


def diverging(spec: StageSpec) -> StageSpec:
    """A stage of the same shape that diverges."""
    fields = spec.model_dump(mode="json")
    fields["stage"]["optim"] |= {"lr_per_256": 1e30, "warmup_nimg": 0, "clip_norm": 1e30}
    return StageSpec.model_validate(fields)
