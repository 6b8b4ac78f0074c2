"""What a search prunes by: where on the way trials are compared (rungs), by which number, and which of them go no further."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from umd_bench.config.documents.fields import Metric
from umd_bench.config.documents.frozen import Frozen

Direction = Literal["maximise", "minimise"]


def _rungs(shares: tuple[float, ...]) -> tuple[float, ...]:
    if shares and all(0 < share < 1 for share in shares) and all(a < b for a, b in itertools.pairwise(shares)):
        return shares
    raise ValueError(
        f"{list(shares)} is not accepted: expected shares of the training in (0, 1), each more than the one before"
    )


class PrunerConfig(Frozen):
    """``pruner:`` of a search. At each rung a trial goes on or is pruned, by Optuna's pruner of that kind."""

    kind: Literal["median", "successive_halving", "hyperband"]
    metric: Metric | None = Field(
        default=None,
        description="stage.metric that rungs compare: of a probe or of samples, made at each rung of the training above it, "
        "or of a training stage's events; the objective when left out, where there is one",
    )
    direction: Direction | None = Field(default=None, description="of a metric that is no objective")
    rungs: Annotated[tuple[float, ...], AfterValidator(_rungs)] = Field(
        default=(0.25, 0.5), description="shares of the training stage's length"
    )
    startup: int = Field(default=5, ge=1, description="median: nothing is pruned before so many trials have finished")
    reduction: int = Field(
        default=3, ge=2, le=100, description="successive_halving, hyperband: about one in so many goes on from a rung"
    )


def rung_stage(stage: str, share: float) -> str:
    """The name of the stage that does at a rung what ``stage`` does at the end: ``probe_at_25`` for a quarter."""
    return f"{stage}_at_{percent(share).replace('.', '_')}"


def percent(share: float) -> str:
    """A share in percent as a person would write it, without the sign: ``25``, ``12.5``."""
    return f"{100 * share:.6g}"
