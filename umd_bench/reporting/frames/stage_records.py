"""The stored facts of one stage of one trial, with the training images and operations of its whole lineage.

A lineage is a stage with all its ancestors: for a probe of a fine-tuned model it includes the pre-training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import WeightsStage
from umd_bench.store import RunDir, SweepRecord, TrialRecord


@dataclass(frozen=True)
class StageRecord:
    """One stage of one trial. ``spec`` is None if the stage never began, ``result`` if it has not finished.

    ``nimg`` (images) and ``flops`` are sums over the lineage's training, None if unknown.
    """

    trial: TrialRecord
    name: str
    key: str
    spec: StageSpec | None
    result: dict[str, Any] | None
    failure: str | None
    nimg: int | None
    flops: float | None
    pruned: bool = False

    @property
    def state(self) -> str:
        """``done``, ``pruned``, ``failed: STATE`` or ``no result``."""
        if self.result is not None:
            return "done"
        if self.pruned:
            return "pruned"
        return "no result" if self.failure is None else f"failed: {self.failure}"

    @property
    def kind(self) -> str | None:
        """``pretrain``, ``finetune``, ``import``, ``probe`` or ``generate``; None for a stage that never began."""
        return None if self.spec is None else self.spec.kind


class StageReader:
    """Reads run directories below ``root``, each only once even if trials share it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cache: dict[str, tuple[StageSpec | None, dict[str, Any] | None, str | None]] = {}

    def records(self, sweep: SweepRecord) -> list[StageRecord]:
        """Every stage of every trial, in the sweep's order, with or without a result."""
        pruned = sweep.pruned()
        return [
            self._record(trial, name, key, pruned=trial.id in pruned)
            for trial in sweep.trials
            for name, key in trial.stages.items()
        ]

    def _record(self, trial: TrialRecord, name: str, key: str, *, pruned: bool) -> StageRecord:
        spec, result, failure = self._read(key)
        nimg, flops = self._lineage_cost(key, None)
        return StageRecord(trial, name, key, spec, result, failure, nimg, flops, pruned)

    def _read(self, key: str) -> tuple[StageSpec | None, dict[str, Any] | None, str | None]:
        if key not in self._cache:
            run = RunDir(self._root, key)
            spec = run.config() if (run.path / "config.yaml").is_file() else None
            result = run.result()
            failure = run.failure() if result is None else None
            self._cache[key] = spec, result, None if failure is None else failure.state
        return self._cache[key]

    def _lineage_cost(self, key: str, until_nimg: int | None) -> tuple[int | None, float | None]:
        """Training images and FLOPs of the lineage of ``key``; of ``key`` itself only the first ``until_nimg`` images count."""
        spec, result, _ = self._read(key)
        if spec is None:
            return None, None
        own_nimg, own_flops = 0, 0.0 if result is not None else None
        if isinstance(spec.stage, WeightsStage):
            own_nimg = spec.stage.nimg if until_nimg is None else until_nimg
            per_image = None if result is None else result.get("facts", {}).get("flops_per_image")
            own_flops = None if per_image is None else float(per_image) * own_nimg
        if spec.parent_key is None:
            return own_nimg, own_flops
        nimg, flops = self._lineage_cost(spec.parent_key, spec.parent_nimg)
        if nimg is None:
            return None, None
        return nimg + own_nimg, None if flops is None or own_flops is None else flops + own_flops
