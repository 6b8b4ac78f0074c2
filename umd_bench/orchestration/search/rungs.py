"""The rungs of a trial: what is measured of it on its way, where that stands, and the checks that it can be.

A metric of a probe or of samples is measured by a copy of that stage which reads its parent's weights at the rung: a stage
like any other, with a key, that begins as soon as the weights are there. A metric of a training stage is read from what it
writes while it runs: the first record at or after the rung.
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

# In a record beside its metrics: where and when it was made, and what depends on the machine.
_NO_METRICS = ("event", "time", "attempt", "nimg", "lr", "images_per_second")


def checked_corners(sweep: Sweep) -> list[Trial]:
    """Trials, with their rungs, that tell whether a search's space is sound, of which each has the stages that it names.

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
            place = sweep.document.place(tuple(error.path.split(".")))
            raise UserError(f"{place}: {error}" if place else str(error)) from None
    return [with_rungs(config, trial) for trial in corners]


def check_rungs(config: SearchConfig, trial: Trial) -> None:
    """Whether the trial has the stage that the pruner compares, and its training such rungs; raises :class:`FieldError`."""
    if config.pruner is None:
        return
    stage, metric, _ = config.pruned_by
    asked = f"{stage}.{metric}"
    if stage not in trial.specs:
        raise FieldError("search.pruner.metric", asked, f"there is no stage {stage}: {one_of(trial.specs)}")
    trained = _trained(trial, stage)
    if trained is None:
        raise FieldError(
            "search.pruner.metric", asked, "expected a metric of a training stage, or of what probes or samples one"
        )
    if stage == trained and config.changing_the_loss():
        paths = ", ".join(config.changing_the_loss())
        raise FieldError(
            "search.pruner.metric",
            asked,
            f"a training's numbers cannot be compared between trials that differ in {paths}: expected a probe's or a sample's",
        )
    spec = trial.specs[trained]
    assert isinstance(spec.stage, TrainStage)
    kept = [spec.stage.nimg_at(share) for share in config.pruner.rungs]
    if len({*kept, spec.stage.nimg}) <= len(kept):
        raise FieldError(
            "search.pruner.rungs",
            list(config.pruner.rungs),
            f"{trained} has {spec.stage.n_steps} steps, of which two rungs, or a rung and the end, would be the same",
        )
    clash = next((name for name in config.rung_stages if stage != trained and name in trial.specs), None)
    if clash is not None:
        raise FieldError("stages", clash, f"a rung's stage takes this name: expected another than {clash}")


def with_rungs(config: SearchConfig, trial: Trial) -> Trial:
    """The trial with a stage a rung, right behind the training that it looks at; itself where nothing is measured by stages."""
    trained = _trained(trial, config.pruned_by[0]) if config.pruner is not None else None
    if trained is None or trained == config.pruned_by[0]:
        return trial
    specs: dict[str, StageSpec] = {}
    for name, spec in trial.specs.items():
        specs[name] = spec
        if name == trained:
            specs |= _rung_specs(config, trial)
    return replace(trial, specs=specs)


def rung_value(root: Path, config: SearchConfig, trial: Trial, place: int) -> float | None:
    """What the pruner's metric is at one of its rungs, by place, of a trial; None where that is not known yet.

    Raises :class:`UserError` where the stage does not report such a metric.
    """
    assert config.pruner is not None
    stage, metric, _ = config.pruned_by
    spec = measuring_spec(config, trial, place)
    if isinstance(spec.stage, TrainStage):
        return _recorded(root, spec, config.pruner.rungs[place], metric)
    result = RunDir(root, spec.key).result()
    return None if result is None else _among(result["metrics"], metric, stage)


def measuring_spec(config: SearchConfig, trial: Trial, place: int) -> StageSpec:
    """The stage that says what the metric is at a rung: the rung's own, or the training that writes it down on its way."""
    assert config.pruner is not None
    stage, name = config.pruned_by[0], rung_stage(config.pruned_by[0], config.pruner.rungs[place])
    if stage == _trained(trial, stage):
        return trial.specs[stage]
    return trial.specs.get(name) or _rung_specs(config, trial)[name]


def trained_spec(config: SearchConfig, trial: Trial) -> StageSpec:
    """The training that the trial's rungs are shares of."""
    trained = _trained(trial, config.pruned_by[0])
    assert trained is not None
    return trial.specs[trained]


def _trained(trial: Trial, stage: str) -> str | None:
    """The training stage whose length the rungs of ``stage`` are shares of: itself, or its parent; None for another kind."""
    if isinstance(trial.specs[stage].stage, TrainStage):
        return stage
    parent = trial.config.stages[stage].parent
    return parent if parent is not None and isinstance(trial.specs[parent].stage, TrainStage) else None


def _rung_specs(config: SearchConfig, trial: Trial) -> dict[str, StageSpec]:
    measured = trial.config.stages[config.pruned_by[0]]
    copies = {name: measured.model_copy(update={"snapshot": share}) for name, share in config.rung_stages.items()}
    specs = stage_specs(trial.config.model_copy(update={"stages": trial.config.stages | copies}))
    return {name: specs[name] for name in copies}


def _recorded(root: Path, spec: StageSpec, share: float, metric: str) -> float | None:
    """From the events of a training stage that runs or ran: of the records since the rung the first, as last written."""
    assert isinstance(spec.stage, TrainStage)
    reached = spec.stage.nimg_at(share)
    since = [event for event in RunDir(root, spec.key).events() if event["event"] == "metrics" and event["nimg"] >= reached]
    if not since:
        return None
    first = min(since, key=lambda event: (event["nimg"], -event["attempt"]))
    return _among({name: value for name, value in first.items() if name not in _NO_METRICS}, metric, spec.kind)


def _among(metrics: dict[str, float], metric: str, stage: str) -> float:
    if metric not in metrics:
        raise UserError(f"search.pruner.metric: {metric!r} is not there: {one_of(metrics)} of {stage}")
    return float(metrics[metric])
