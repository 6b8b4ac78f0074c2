"""A search: the space that suggestions come from, the objectives, the number of trials, and the sampler."""

from __future__ import annotations

import typing
from typing import Any, Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Frozen, Metric
from umd_bench.config.errors import FieldRuleError
from umd_bench.config.sweep.pruning import Direction, PrunerConfig, rung_stage

Scalar = bool | int | float | str | None
# Trials that differ in one of these minimise different losses, so their training losses cannot be ranked.
_CHANGES_LOSS = ("corruption", "loss_weight", "min_snr_gamma", "noise", "method", "labels")


class Dimension(Frozen):
    """The values that one field may get: a range (``low``, ``high``; ``log``, ``step``, ``int``), or one of ``choices``."""

    low: float | None = Field(default=None, description="lowest value of the range")
    high: float | None = Field(default=None, description="highest value of the range; more than low")
    log: bool = Field(default=False, description="suggest uniformly in the logarithm; low has to be above 0")
    step: float | None = Field(default=None, gt=0, description="suggest only low + k * step; null: any value of the range")
    int: bool = Field(default=False, description="suggest whole numbers only")
    choices: tuple[Scalar, ...] | None = Field(
        default=None, description="the values to choose from, two or more, in place of a range"
    )

    @model_validator(mode="after")
    def _range_or_choices(self) -> Dimension:
        if self.choices is not None:
            given = [name for name in ("low", "high", "log", "step", "int") if getattr(self, name) not in (None, False)]
            if given:
                raise FieldRuleError(given[0], "is not accepted with choices: expected a range or choices, not both")
            if len({repr(value) for value in self.choices}) != len(self.choices) or len(self.choices) < 2:
                raise FieldRuleError("choices", f"{list(self.choices)} is not accepted: expected two or more different values")
            return self
        if self.low is None or self.high is None:
            raise FieldRuleError("low" if self.low is None else "high", "is missing: expected low and high, or choices")
        if self.low >= self.high:
            raise FieldRuleError("high", f"{self.high:g} is not accepted: expected more than low = {self.low:g}")
        if self.log and self.low <= 0:
            raise FieldRuleError("low", f"{self.low:g} is not accepted: expected more than 0, since log is true")
        if self.log and self.step is not None:
            raise FieldRuleError(
                "step", f"{self.step:g} is not accepted in a logarithmic range: expected log or step, not both"
            )
        if self.int and not all(float(value).is_integer() for value in (self.low, self.high, self.step or 1)):
            raise FieldRuleError("int", "true is not accepted: expected whole numbers as low, high and step")
        return self

    @property
    def first(self) -> Scalar:
        """The lowest value of the range, or the first choice."""
        return self.choices[0] if self.choices is not None else self.plain(self.low or 0.0)

    @property
    def last(self) -> Scalar:
        """The highest value of the range, or the last choice."""
        return self.choices[-1] if self.choices is not None else self.plain(self.high or 0.0)

    def plain(self, value: Any) -> Scalar:
        """A suggested value as the trial gets it.

        A choice is unchanged, a value with ``int`` is rounded to a whole number, and a value with ``step`` to ten digits. Any
        other value is rounded to four digits, or to more where the range is narrow, and kept inside the range. Rounding keeps
        names and tables readable, and turns suggestions that hardly differ into the same trial.
        """
        if self.choices is not None:
            return typing.cast(Scalar, value)
        assert self.low is not None
        assert self.high is not None
        if self.int:
            return round(float(value))
        if self.step is not None:
            return float(f"{value:.10g}")
        spread = min(abs(value), self.high - self.low) or self.high - self.low
        digits = 4
        while digits < 15 and abs(float(f"{value:.{digits}g}") - value) > spread * 1e-3:
            digits += 1
        return min(max(float(f"{value:.{digits}g}"), self.low), self.high)


class SearchConfig(Frozen):
    """``search:`` of a sweep file. Each suggestion is run with each of the sweep's seeds; its score is the mean over them."""

    sampler: Literal["random", "tpe", "gp", "nsga2"] = Field(default="tpe", description="Optuna's sampler of suggestions")
    trials: int = Field(ge=1, le=10_000, description="number of suggestions for each combination of the axes, 1..10000")
    space: dict[str, Dimension] = Field(
        min_length=1, description="dotted path of a field of the trial (or several, joined by commas) -> its range or choices"
    )
    objectives: dict[Metric, Direction] = Field(
        min_length=1, max_length=4, description="one to four stage.metric -> maximise or minimise; several give a Pareto front"
    )
    parallel: int = Field(
        default=4,
        ge=1,
        le=256,
        description="suggestions that run at a time, 1..256; suggestion k uses the results of suggestions 0 to k - parallel",
    )
    startup: int = Field(default=10, ge=1, description="tpe and gp only: number of random suggestions at the start")
    population: int = Field(default=16, ge=2, description="nsga2 only: suggestions per generation; less than trials")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the suggestions; independent of the training seeds")
    pruner: PrunerConfig | None = Field(default=None, description="when to stop bad trials early; null: never")

    @model_validator(mode="after")
    def _generations(self) -> SearchConfig:
        if self.sampler == "nsga2" and self.trials <= self.population:
            raise FieldRuleError(
                "population",
                f"{self.population} is not accepted: expected less than trials = {self.trials}; otherwise there is only one "
                "random generation",
            )
        return self

    @model_validator(mode="after")
    def _pruned_by_one_metric(self) -> SearchConfig:
        if self.pruner is None:
            return self
        metric, direction = self.pruner.metric, self.pruner.direction
        if metric is None and len(self.objectives) > 1:
            raise FieldRuleError(
                "pruner.metric", "is missing: expected one stage.metric to prune by, since there are several objectives"
            )
        known = self.objectives.get(metric or next(iter(self.objectives)))
        if known is None and direction is None:
            raise FieldRuleError(
                "pruner.direction", f"is missing: expected maximise or minimise, since {metric} is no objective"
            )
        if known is not None and direction not in (None, known):
            raise FieldRuleError("pruner.direction", f"{direction!r} is not accepted: expected {known}, as the objective says")
        return self

    @property
    def pruned_by(self) -> tuple[str, str, Direction]:
        """Stage, metric and direction that the pruner compares by; the search must have a pruner."""
        assert self.pruner is not None
        metric = self.pruner.metric or next(iter(self.objectives))
        stage, _, name = metric.partition(".")
        return stage, name, self.pruner.direction or self.objectives[metric]

    @property
    def rung_stages(self) -> dict[str, float]:
        """Stage name at each rung -> share of the training; empty without a pruner."""
        if self.pruner is None:
            return {}
        return {rung_stage(self.pruned_by[0], share): share for share in self.pruner.rungs}

    def identity(self) -> dict[str, Any]:
        """The fields on which the suggestions depend, as plain values: all but the number of suggestions.

        A search without a pruner has no field ``pruner`` here, so a search that began before the field existed can continue.
        """
        return self.model_dump(mode="json", exclude={"trials"} | ({"pruner"} if self.pruner is None else set()))

    def changing_the_loss(self) -> list[str]:
        """Paths of the space whose values change the loss itself, so that training losses cannot be compared."""
        paths = [path.strip() for axis in self.space for path in axis.split(",")]
        return [path for path in paths if set(path.split(".")) & set(_CHANGES_LOSS)]
