"""The pruner of a search: at which points of the training (rungs) and by which metric trials are compared, and which stop."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from umd_bench.config.documents.fields import Frozen, Metric

Direction = Literal["maximise", "minimise"]


def _rungs(shares: tuple[float, ...]) -> tuple[float, ...]:
    if shares and all(0 < share < 1 for share in shares) and all(a < b for a, b in itertools.pairwise(shares)):
        return shares
    raise ValueError(
        f"{list(shares)} is not accepted: expected shares of the training in (0, 1), each more than the one before"
    )


class PrunerConfig(Frozen):
    """``pruner:`` of a search. At each rung, the pruner of Optuna that ``kind`` names decides whether a trial continues."""

    kind: Literal["median", "successive_halving", "hyperband"] = Field(description="Optuna's pruner")
    metric: Metric | None = Field(
        default=None,
        description="stage.metric that trials are compared by. A probe or generate stage then also runs at each rung of its "
        "parent's training; of a training stage, its own records are read. null: the objective, if there is only one",
    )
    direction: Direction | None = Field(
        default=None, description="maximise or minimise the metric; null: the direction of the objective with the metric's name"
    )
    rungs: Annotated[tuple[float, ...], AfterValidator(_rungs)] = Field(
        default=(0.25, 0.5), description="when trials are compared: rising shares of the training's length, in (0, 1)"
    )
    startup: int = Field(default=5, ge=1, description="median only: number of trials that finish before the first is pruned")
    reduction: int = Field(
        default=3,
        ge=2,
        le=100,
        description="successive_halving, hyperband: about one trial in this many continues after a rung, 2..100",
    )


def rung_stage(stage: str, share: float) -> str:
    """The name of the stage that runs at a rung in place of ``stage``: ``probe_at_25`` after a quarter of the training."""
    return f"{stage}_at_{percent(share).replace('.', '_')}"


def percent(share: float) -> str:
    """A share in percent as a person would write it, without the sign: ``25``, ``12.5``."""
    return f"{100 * share:.6g}"
