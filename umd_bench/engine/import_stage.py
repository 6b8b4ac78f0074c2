"""The import stage: weights from a file become the snapshot of a run."""

from __future__ import annotations

from umd_bench.config.errors import UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage
from umd_bench.data.datasets import DataFacts
from umd_bench.engine.published.layouts import read_import
from umd_bench.engine.training.snapshot import publish_snapshot
from umd_bench.store.run import Attempt


def run_import(spec: StageSpec, source: DataFacts, attempt: Attempt) -> dict[str, str | int]:
    """Publish the file's weights as the stage's snapshot; returns facts about them.

    Raises :class:`UserError` for another kind of stage, and as :func:`~umd_bench.engine.published.layouts.read_import`.
    """
    stage = spec.stage
    if not isinstance(stage, ImportStage):
        raise UserError(f"a {spec.kind} stage imports nothing: expected an import stage")
    weights = read_import(spec.model, stage, source)
    for note in weights.notes:
        attempt.event("note", message=note)
    publish_snapshot(attempt, stage.nimg, weights.state, None, {})
    return {
        "layout": stage.layout,
        "sha256": stage.sha256,
        "parameters": sum(value.numel() for value in weights.state.values()),
        "nimg": stage.nimg,
        "notes": "; ".join(weights.notes),
    }
