"""Finds the finished run with weights that a person names on the command line."""

from __future__ import annotations

from pathlib import Path

from umd_bench.config.errors import UserError, one_of
from umd_bench.config.trial.train_stage import WeightsStage
from umd_bench.orchestration.monitor.lookup import NamedRun, lookup_stages
from umd_bench.store import RunDir

_TRAINING = ("pretrain", "finetune", "import")


def find_run(root: Path, query: str) -> RunDir:
    """The finished run with weights that ``query`` names: a key, a trial, or the beginning of one, as in ``umd-bench logs``.

    For a trial it is the last stage with weights, or the stage after a colon: ``SWEEP/TRIAL:pretrain``. Raises
    :class:`UserError` if there is no such run, or more than one.
    """
    named, stage = _lookup(root, query)
    begun = {one.name: one.run for one in named if (one.run.path / "config.yaml").exists()}
    trained = {name: run for name, run in begun.items() if isinstance(run.config().stage, WeightsStage)}
    if not trained:
        reason = f"it is a {named[0].run.config().kind} stage" if len(named) == 1 else "no training of the trial has begun"
        raise UserError(f"RUN = {query!r} is not accepted: {reason}, expected a pretrain, finetune or import stage")
    if stage is not None and stage not in trained:
        raise UserError(f"RUN = {query!r} is not accepted: {one_of(trained)} after the colon")
    to_come = [one.name for one in named if one.name in _TRAINING and one.name not in begun]
    if stage is None and to_come:
        instead = f"{query}:{list(trained)[-1]}"
        raise UserError(f"RUN = {query!r} is not accepted: its {to_come[-1]} has not begun; {instead} has")
    run = list(trained.values())[-1] if stage is None else trained[stage]
    if run.result() is None:
        raise UserError(f"RUN = {query!r} is not accepted: {run.config().kind} {run.key} has no result yet")
    return run


def _lookup(root: Path, query: str) -> tuple[list[NamedRun], str | None]:
    """The stages of a key or trial, and the stage name after the last colon, if any; trial names can contain colons too."""
    trial, colon, stage = query.rpartition(":")
    try:
        return lookup_stages(root, query), None
    except UserError as error:
        unknown = UserError(f"RUN = {error}")
    if not colon:
        raise unknown
    try:
        return lookup_stages(root, trial), stage
    except UserError:
        raise unknown from None
