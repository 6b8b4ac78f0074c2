"""What is proved of every trial before any stage is submitted: names resolve, shapes fit, the data is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from umd_bench.config.data import DataConfig
from umd_bench.config.errors import FieldError
from umd_bench.config.generating import GenerateStage
from umd_bench.config.probing import ProbeStage
from umd_bench.config.resolve import Trial
from umd_bench.config.stage import StageSpec
from umd_bench.config.training import ImportStage, TrainStage
from umd_bench.data.pack import open_data
from umd_bench.data.sources import DataFacts, data_facts
from umd_bench.engine.families import can_sample, require_own
from umd_bench.engine.noise_process import NoiseProcess
from umd_bench.engine.published import dit
from umd_bench.engine.published.layouts import layout, read_import
from umd_bench.engine.samplers import check_sampler
from umd_bench.evaluation.extractors import check_extractor
from umd_bench.store import RunDir


def check_trials(trials: Iterable[Trial], data_root: Path | None = None) -> None:
    """Raise :class:`UserError` for the first trial that cannot run, naming the file and line of the field.

    Needs no data, so that a plan for a cluster can be checked on a laptop; but a user's own data set is known only where its
    pack lies below ``data_root`` (None: where packs lie by default).
    """
    for trial in trials:
        try:
            check_trial(trial, data_root)
        except FieldError as error:
            raise trial.located(error) from None


def check_trial(trial: Trial, data_root: Path | None = None) -> None:
    """Names and shapes of one trial; raises :class:`FieldError`."""
    data = data_facts(trial.config.data, root=data_root)
    patch = trial.config.model.patch
    if data.size % patch:
        raise FieldError("model.patch", patch, f"expected a divisor of the image size {data.size}")
    for name, spec in trial.specs.items():
        _check_stage(name, spec, data, data_root)


def _check_stage(name: str, spec: StageSpec, data: DataFacts, data_root: Path | None) -> None:
    tokens = (data.size // spec.model.patch) ** 2
    match spec.stage:
        case TrainStage() as train:
            require_own(spec.model, "trained")
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
        case ImportStage() as imported:
            _check_import(name, imported, spec, data)
        case ProbeStage() as probe:
            if probe.t == 0 and spec.model.family == "dit":
                raise FieldError(
                    f"stages.{name}.t", 0, f"expected 1..{spec.noise.timesteps}: a DiT has no input for clean images"
                )
            other = data if probe.data is None else data_facts(spec.reads, path=f"stages.{name}.data", root=data_root)
            if (other.size, other.channels) != (data.size, data.channels):
                asked, made = (f"{facts.channels}x{facts.size}x{facts.size}" for facts in (other, data))
                path = f"stages.{name}.data.name"
                raise FieldError(path, other.name, f"it has images of {asked}, and the model was made for {made} ({data.name})")
            if probe.t is not None and probe.t > spec.noise.timesteps:
                raise FieldError(f"stages.{name}.t", probe.t, f"expected 0..{spec.noise.timesteps}")
        case GenerateStage() as generate:
            if not can_sample(spec.model):
                raise FieldError(f"stages.{name}.parent", generate.parent, f"the family {spec.model.family} has no sampler")
            check_sampler(generate, NoiseProcess(spec.noise), guidable=spec.parent_labels, path=f"stages.{name}")
            check_extractor(generate.extractor, data, path=f"stages.{name}.extractor")


def _check_import(name: str, stage: ImportStage, spec: StageSpec, data: DataFacts) -> None:
    family = layout(stage.layout, f"stages.{name}.layout").family
    if spec.model.family != family:
        raise FieldError("model.family", spec.model.family, f"expected {family}, which is what the layout {stage.layout} holds")
    if stage.classes not in (0, data.classes):
        path = f"stages.{name}.classes"
        raise FieldError(path, stage.classes, f"expected 0, or {data.classes} as {data.name} has")
    if family != "mae" and stage.pool != "class":
        raise FieldError(
            f"stages.{name}.pool", stage.pool, f"expected class: only the family mae leaves a choice, not {family}"
        )
    if family == "mae" and not stage.sees_clean:
        raise FieldError(f"stages.{name}.sees_clean", stage.sees_clean, "expected true: an MAE sees nothing but clean images")
    if family == "dit":
        if stage.sees_clean:
            path = f"stages.{name}.sees_clean"
            raise FieldError(path, stage.sees_clean, "expected false: a DiT has no input for clean images")
        if spec.noise != dit.NOISE:
            wanted = f"{dit.NOISE.schedule} with timesteps = {dit.NOISE.timesteps}"
            raise FieldError("noise.schedule", spec.noise.schedule, f"expected {wanted}, which is what a DiT was trained with")


def check_weights(trials: Iterable[Trial], results: Path, data_root: Path | None = None) -> None:
    """Read every file that an import stage without a result names; :class:`UserError` where one is not what it should be."""
    seen = set()
    for trial in trials:
        for name, spec in trial.specs.items():
            if not isinstance(spec.stage, ImportStage) or spec.key in seen or RunDir(results, spec.key).result() is not None:
                continue
            seen.add(spec.key)
            try:
                read_import(spec.model, spec.stage, data_facts(spec.data, root=data_root), path=f"stages.{name}")
            except FieldError as error:
                raise trial.located(error) from None


def prepare_data(trials: Iterable[Trial], data_root: Path) -> dict[DataConfig, str]:
    """Pack the data sets that are not packed yet; the digest of each. Raises :class:`UserError` when one is missing."""
    wanted = dict.fromkeys(spec.reads for trial in trials for spec in trial.specs.values())
    return {data: open_data(data, data_root).manifest.digest for data in wanted}
