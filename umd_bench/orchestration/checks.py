"""What is proved of every trial before any stage is submitted: names resolve, shapes fit, the data is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from umd_bench.config.errors import FieldError, one_of
from umd_bench.config.resolve import Trial
from umd_bench.config.stage import StageSpec
from umd_bench.config.trial import DataConfig, GenerateStage, ProbeStage, TrainStage
from umd_bench.data.pack import open_data
from umd_bench.data.sources import DataFacts, data_facts
from umd_bench.engine.samplers import SAMPLERS
from umd_bench.engine.schedules import NoiseSchedule
from umd_bench.evaluation.extractors import check_extractor


def check_trials(trials: Iterable[Trial]) -> None:
    """Raise :class:`UserError` for the first trial that cannot run, naming the file and line of the field.

    Needs no data: a plan for a cluster can be checked on a laptop.
    """
    for trial in trials:
        try:
            check_trial(trial)
        except FieldError as error:
            raise trial.located(error) from None


def check_trial(trial: Trial) -> None:
    """Names and shapes of one trial; raises :class:`FieldError`."""
    data = data_facts(trial.config.data)
    NoiseSchedule(trial.config.noise)
    patch = trial.config.model.patch
    if data.size % patch:
        raise FieldError("model.patch", patch, f"expected a divisor of the image size {data.size}")
    for name, spec in trial.specs.items():
        _check_stage(name, spec, data)


def _check_stage(name: str, spec: StageSpec, data: DataFacts) -> None:
    tokens = (data.size // spec.model.patch) ** 2
    match spec.stage:
        case TrainStage() as train:
            corruption = train.corruption
            if train.n_clean and int(tokens * (1 - corruption.mask_ratio_t0)) == tokens:
                path, ratio = f"stages.{name}.corruption.mask_ratio_t0", corruption.mask_ratio_t0
                raise FieldError(path, ratio, f"it hides none of {tokens} tokens, expected at least {1 / tokens}")
            for field in ("mask_ratio", "mask_ratio_t0"):
                ratio = getattr(corruption, field)
                idle = train.n_clean == (train.batch if field == "mask_ratio" else 0)
                if not idle and int(tokens * (1 - ratio)) < 1:
                    path = f"stages.{name}.corruption.{field}"
                    raise FieldError(path, ratio, f"it hides all of {tokens} tokens: expected at most {1 - 1 / tokens}")
        case ProbeStage() as probe:
            other = data_facts(spec.reads, path=f"stages.{name}.data") if probe.data is not None else data
            if (other.size, other.channels) != (data.size, data.channels):
                asked, made = (f"{facts.channels}x{facts.size}x{facts.size}" for facts in (other, data))
                path = f"stages.{name}.data.name"
                raise FieldError(path, other.name, f"it has images of {asked}, and the model was made for {made} ({data.name})")
            if probe.t is not None and probe.t > spec.noise.timesteps:
                raise FieldError(f"stages.{name}.t", probe.t, f"expected 0..{spec.noise.timesteps}")
        case GenerateStage() as generate:
            if generate.sampler not in SAMPLERS:
                raise FieldError(f"stages.{name}.sampler", generate.sampler, one_of(SAMPLERS))
            if generate.steps > spec.noise.timesteps:
                raise FieldError(f"stages.{name}.steps", generate.steps, f"expected 1..{spec.noise.timesteps}")
            if generate.cfg_scale != 1 and not spec.parent_labels:
                path = f"stages.{name}.cfg_scale"
                raise FieldError(path, generate.cfg_scale, "expected 1, since the parent has no classes to guide by")
            check_extractor(generate.extractor, data, path=f"stages.{name}.extractor")


def prepare_data(trials: Iterable[Trial], data_root: Path) -> dict[DataConfig, str]:
    """Pack the data sets that are not packed yet; the digest of each. Raises :class:`UserError` when one is missing."""
    wanted = dict.fromkeys(spec.reads for trial in trials for spec in trial.specs.values())
    return {data: open_data(data, data_root).manifest.digest for data in wanted}
