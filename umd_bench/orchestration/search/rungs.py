"""The rungs of a trial: the shares of its training at which a pruner's metric is measured.

A metric of a probe or a generate stage is measured by a copy of that stage, which reads its parent's weights at the rung. The
copy is an ordinary stage with a key of its own, and begins as soon as the weights exist. A metric of a training stage is read
from its events: from the first record at or after the rung.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.sweep.pruning import rung_stage
from umd_bench.config.sweep.resolve import Sweep, Trial
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.config.trial.stage_spec import StageSpec, stage_specs
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.store import RunDir

# Fields of a "metrics" event that no pruner may compare: identifiers, the schedule, and the machine's speed.
_NO_METRICS = ("event", "time", "attempt", "nimg", "lr", "images_per_second")


def checked_corners(sweep: Sweep) -> list[Trial]:
    """Check that a search names only stages that its trials have; returns the trials at the corners of its space, with rungs.

    Raises :class:`UserError` for the first mistake.
    """
    config = sweep.config.search
    assert config is not None
    corners = sweep.corners()
    for objective in config.objectives:
        stage = objective.partition(".")[0]
        if stage not in corners[0].specs:
            raise FieldError("search.objectives", objective, f"there is no stage {stage}: {one_of(corners[0].specs)}")
    for trial in corners:
        try:
            check_rungs(config, trial)
        except FieldError as error:
            place = sweep.document.location(tuple(error.path.split(".")))
            raise UserError(f"{place}: {error}" if place else str(error)) from None
    return [with_rungs(config, trial) for trial in corners]


def check_rungs(config: SearchConfig, trial: Trial) -> None:
    """Raise :class:`FieldError` if the trial lacks the stage of the pruner's metric, or its training cannot have the rungs."""
    if config.pruner is None:
        return
    stage, metric, _ = config.pruned_by
    metric_path = f"{stage}.{metric}"
    if stage not in trial.specs:
        raise FieldError("search.pruner.metric", metric_path, f"there is no stage {stage}: {one_of(trial.specs)}")
    trained = _trained(trial, stage)
    if trained is None:
        raise FieldError(
            "search.pruner.metric", metric_path, "expected a metric of a training stage, or of a stage with one as parent"
        )
    if stage == trained and config.changing_the_loss():
        paths = ", ".join(config.changing_the_loss())
        raise FieldError(
            "search.pruner.metric",
            metric_path,
            f"a training's numbers cannot be compared between trials that differ in {paths}: "
            "expected a metric of a probe or generate stage",
        )
    spec = trial.specs[trained]
    assert isinstance(spec.stage, TrainStage)
    rung_nimgs = [spec.stage.nimg_at(share) for share in config.pruner.rungs]
    if len({*rung_nimgs, spec.stage.nimg}) <= len(rung_nimgs):
        raise FieldError(
            "search.pruner.rungs",
            list(config.pruner.rungs),
            f"{trained} has {spec.stage.n_steps} steps, so two rungs, or a rung and the end, would be at the same step",
        )
    clash = next((name for name in config.rung_stages if stage != trained and name in trial.specs), None)
    if clash is not None:
        raise FieldError("stages", clash, "a rung's stage has this name: expected another")


def with_rungs(config: SearchConfig, trial: Trial) -> Trial:
    """The trial with one stage per rung, right after the training; unchanged if the training's own events have the metric."""
    trained = _trained(trial, config.pruned_by[0]) if config.pruner is not None else None
    if trained is None or trained == config.pruned_by[0]:
        return trial
    specs: dict[str, StageSpec] = {}
    for name, spec in trial.specs.items():
        specs[name] = spec
        if name == trained:
            specs |= _rung_specs(config, trial)
    return replace(trial, specs=specs)


def rung_value(root: Path, config: SearchConfig, trial: Trial, index: int) -> float | None:
    """A trial's value of the pruner's metric at rung ``index``; None until it is measured.

    Raises :class:`UserError` if the stage does not report the metric.
    """
    assert config.pruner is not None
    stage, metric, _ = config.pruned_by
    spec = measuring_spec(config, trial, index)
    if isinstance(spec.stage, TrainStage):
        return _logged_value(root, spec, config.pruner.rungs[index], metric)
    result = RunDir(root, spec.key).result()
    return None if result is None else _value_of(result["metrics"], metric, stage)


def measuring_spec(config: SearchConfig, trial: Trial, index: int) -> StageSpec:
    """The stage that measures the metric at rung ``index``: the rung's own stage, or the training."""
    assert config.pruner is not None
    stage, name = config.pruned_by[0], rung_stage(config.pruned_by[0], config.pruner.rungs[index])
    if stage == _trained(trial, stage):
        return trial.specs[stage]
    return trial.specs.get(name) or _rung_specs(config, trial)[name]


def trained_spec(config: SearchConfig, trial: Trial) -> StageSpec:
    """The training stage that has the trial's rungs."""
    trained = _trained(trial, config.pruned_by[0])
    assert trained is not None
    return trial.specs[trained]


def _trained(trial: Trial, stage: str) -> str | None:
    """``stage`` if it is a training stage, else its parent if that is one, else None."""
    if isinstance(trial.specs[stage].stage, TrainStage):
        return stage
    parent = trial.config.stages[stage].parent
    return parent if parent is not None and isinstance(trial.specs[parent].stage, TrainStage) else None


def _rung_specs(config: SearchConfig, trial: Trial) -> dict[str, StageSpec]:
    measured = trial.config.stages[config.pruned_by[0]]
    copies = {name: measured.model_copy(update={"snapshot": share}) for name, share in config.rung_stages.items()}
    # A rung's stage scores with the same trained classifiers as the stage that it copies.
    specs = stage_specs(trial.config.model_copy(update={"stages": trial.config.stages | copies}))
    trained = {"extractor_sha256": trial.specs[config.pruned_by[0]].extractor_sha256}
    return {name: specs[name].model_copy(update=trained) for name in copies}


def _logged_value(root: Path, spec: StageSpec, share: float, metric: str) -> float | None:
    """The metric in a training's events, from the first record at or after the rung.

    If several attempts wrote that record, the newest attempt's record counts.
    """
    assert isinstance(spec.stage, TrainStage)
    reached = spec.stage.nimg_at(share)
    since = [event for event in RunDir(root, spec.key).events() if event["event"] == "metrics" and event["nimg"] >= reached]
    if not since:
        return None
    first = min(since, key=lambda event: (event["nimg"], -event["attempt"]))
    return _value_of({name: value for name, value in first.items() if name not in _NO_METRICS}, metric, spec.kind)


def _value_of(metrics: dict[str, float], metric: str, stage: str) -> float:
    if metric not in metrics:
        raise UserError(f"search.pruner.metric: {stage} has no metric {metric!r}: {one_of(metrics)}")
    return float(metrics[metric])
