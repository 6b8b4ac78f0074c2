"""The checks of every trial before any stage is submitted: names resolve, shapes fit, data and weights exist.

Torch is imported only for stages that import weights and for timm's extractors, so that the command reports a mistake at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.sweep.resolve import Trial
from umd_bench.config.trial.data import SPLITS, DataConfig
from umd_bench.config.trial.generate_stage import GenerateStage, check_sampler
from umd_bench.config.trial.model import POOLS
from umd_bench.config.trial.probe_stage import ChooseConfig, ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage, TrainStage
from umd_bench.data.datasets import DataFacts, data_facts
from umd_bench.data.open_data import open_data, source_images
from umd_bench.data.packs.pack import Pack
from umd_bench.evaluation.extractors.contract import INCEPTION
from umd_bench.evaluation.extractors.registry import check_extractor, is_trained_name, require_weights
from umd_bench.store import RunDir


def check_trials(trials: Iterable[Trial], data_root: Path | None = None) -> None:
    """Raise :class:`UserError` for the first trial that cannot run, naming the file and line of the field.

    Needs no data, so that a laptop can check a plan for a cluster. Only a user's own data set must be packed, below
    ``data_root`` (None: the default folder).
    """
    for trial in trials:
        try:
            check_trial(trial, data_root)
        except FieldError as error:
            raise trial.located(error) from None


def check_trial(trial: Trial, data_root: Path | None = None) -> None:
    """Check names and shapes of one trial; raises :class:`FieldError`."""
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
            spec.model.require_own("trained")
            if data.vae is not None:
                train.augment.require_no_crop(f"stages.{name}.augment")
            corruption = train.corruption
            if train.n_clean and int(tokens * (1 - corruption.mask_ratio_t0)) == tokens:
                path, ratio = f"stages.{name}.corruption.mask_ratio_t0", corruption.mask_ratio_t0
                raise FieldError(path, ratio, f"it hides none of {tokens} tokens: expected at least {1 / tokens}")
            for field in ("mask_ratio", "mask_ratio_t0"):
                ratio = getattr(corruption, field)
                idle = train.n_clean == (train.batch if field == "mask_ratio" else 0)
                if not idle and int(tokens * (1 - ratio)) < 1:
                    path = f"stages.{name}.corruption.{field}"
                    raise FieldError(path, ratio, f"it hides all of {tokens} tokens: expected at most {1 - 1 / tokens}")
        case ImportStage() as imported:
            _check_import(name, imported, spec, data)
        case ProbeStage() as probe:
            spec.model.check_representation(probe.block, probe.pool, f"stages.{name}")
            if probe.choose is not None:
                _check_choice(f"stages.{name}.choose", probe.choose, spec)
            if probe.t == 0 and spec.model.family == "dit":
                raise FieldError(
                    f"stages.{name}.t", 0, f"expected 1..{spec.noise.timesteps}: a DiT has no input for clean images"
                )
            other = data if probe.data is None else data_facts(spec.input_data, path=f"stages.{name}.data", root=data_root)
            if (other.size, other.channels) != (data.size, data.channels):
                probed, trained = (f"{facts.channels}x{facts.size}x{facts.size}" for facts in (other, data))
                path = f"stages.{name}.data.name"
                raise FieldError(path, other.name, f"it has images of {probed}, but the model is for {trained} ({data.name})")
            if probe.t is not None and probe.t > spec.noise.timesteps:
                raise FieldError(f"stages.{name}.t", probe.t, f"expected 0..{spec.noise.timesteps}")
        case GenerateStage() as generate:
            if not spec.model.can_sample:
                raise FieldError(f"stages.{name}.parent", generate.parent, f"the family {spec.model.family} has no sampler")
            if generate.clip and data.vae is not None:
                raise FieldError(f"stages.{name}.clip", True, "expected false: latents are not bounded by [-1, 1]")
            check_sampler(generate, spec.noise, guidable=spec.parent_labels, path=f"stages.{name}")
            for extractor in generate.all_extractors:
                path = _extractor_field(name, generate, extractor)
                check_extractor(extractor, data, path=path, root=data_root)
                if is_trained_name(extractor) and extractor not in spec.extractor_sha256:
                    raise FieldError(
                        path, extractor, "the trial was resolved without the data root of this classifier, whose hash it needs"
                    )
            if not generate.is_split and generate.extractor != INCEPTION:
                path = f"stages.{name}.reference"
                raise FieldError(
                    path,
                    generate.reference,
                    f"a published reference has statistics of {INCEPTION}, not of {generate.extractor}: {one_of(SPLITS)}",
                )
            if "sfid" in generate.scores and INCEPTION not in generate.all_extractors:
                path = f"stages.{name}.scores"
                raise FieldError(
                    path,
                    "sfid",
                    f"only {INCEPTION} has spatial features: leave sfid out, or add {INCEPTION} to more_extractors",
                )


def _extractor_field(name: str, stage: GenerateStage, extractor: str) -> str:
    """The path of the field of the stage ``name`` that names the extractor."""
    return f"stages.{name}.{'extractor' if extractor == stage.extractor else 'more_extractors'}"


def _check_choice(path: str, choose: ChooseConfig, spec: StageSpec) -> None:
    """Raise :class:`FieldError` for a candidate block, pool or t that the model does not have."""
    model, first = spec.model, 1 if spec.model.family == "dit" else 0  # a DiT has no input for clean images
    for place in choose.places(model):
        if place.block is not None and place.block > model.depth:
            raise FieldError(f"{path}.blocks", place.block, f"expected 1..{model.depth}, the encoder's blocks")
        if place.pool not in POOLS[model.family]:
            known = one_of(POOLS[model.family])
            raise FieldError(f"{path}.pools", place.pool, f"the family {model.family} has other tokens; {known}")
        if not first <= place.t <= spec.noise.timesteps:
            raise FieldError(f"{path}.times", place.t, f"expected {first}..{spec.noise.timesteps}")


def _check_import(name: str, stage: ImportStage, spec: StageSpec, data: DataFacts) -> None:
    from umd_bench.engine.published import dit
    from umd_bench.engine.published.layouts import layout

    family = layout(stage.layout, f"stages.{name}.layout").family
    if spec.model.family != family:
        raise FieldError("model.family", spec.model.family, f"expected {family}, the family of the layout {stage.layout}")
    if stage.classes not in (0, data.classes):
        path = f"stages.{name}.classes"
        raise FieldError(path, stage.classes, f"expected 0, or the {data.classes} classes of {data.name}")
    if family != "mae" and stage.pool != "class":
        raise FieldError(
            f"stages.{name}.pool", stage.pool, f"expected class: only the family mae has another pool, not {family}"
        )
    if family == "mae" and not stage.sees_clean:
        raise FieldError(f"stages.{name}.sees_clean", stage.sees_clean, "expected true: an MAE sees only clean images")
    if family == "dit":
        if stage.sees_clean:
            path = f"stages.{name}.sees_clean"
            raise FieldError(path, stage.sees_clean, "expected false: a DiT has no input for clean images")
        if spec.noise != dit.NOISE:
            wanted = f"{dit.NOISE.schedule} with timesteps = {dit.NOISE.timesteps}"
            raise FieldError("noise.schedule", spec.noise.schedule, f"expected {wanted}, as DiTs were trained")


def check_weights(trials: Iterable[Trial], results: Path, data_root: Path | None = None) -> None:
    """Check the weights that stages without a result need: weights to import, which are read, and weights of extractors.

    Raises :class:`UserError` if a file is missing or has the wrong content.
    """
    seen = set()
    extractors = set()
    for trial in trials:
        for name, spec in trial.specs.items():
            if spec.key in seen or RunDir(results, spec.key).result() is not None:
                continue
            seen.add(spec.key)
            try:
                if isinstance(spec.stage, ImportStage):
                    from umd_bench.engine.published.layouts import read_import

                    read_import(spec.model, spec.stage, data_facts(spec.data, root=data_root), path=f"stages.{name}")
                if isinstance(spec.stage, GenerateStage):
                    for extractor in spec.stage.all_extractors:
                        if (extractor, spec.data) not in extractors:
                            path = _extractor_field(name, spec.stage, extractor)
                            require_weights(extractor, path=path, size=spec.data.side, root=data_root)
                            extractors.add((extractor, spec.data))
            except FieldError as error:
                raise trial.located(error) from None


def prepare_data(trials: Iterable[Trial], data_root: Path) -> dict[DataConfig, str]:
    """Pack the data sets that are not packed yet; returns the digest of each.

    Raises :class:`UserError` if one is missing, if a stage generates latents for a data set that has no images to compare
    them with, or if two data sets were encoded by different VAEs of the same name.
    """
    specs = [spec for trial in trials for spec in trial.specs.values()]
    packs = {data: open_data(data, data_root) for data in dict.fromkeys(spec.input_data for spec in specs)}
    for data in dict.fromkeys(spec.input_data for spec in specs if isinstance(spec.stage, GenerateStage)):
        source_images(packs[data])
    by_vae: dict[str, Pack] = {}
    for pack in packs.values():
        vae = pack.manifest.vae
        if vae is None:
            continue
        other = by_vae.setdefault(vae.name, pack)
        if other.manifest.vae is None or other.manifest.vae.hash != vae.hash:
            raise UserError(f"{pack.path} and {other.path} hold latents of two VAEs under one name, {vae.name}")
    return {data: pack.manifest.digest for data, pack in packs.items()}
