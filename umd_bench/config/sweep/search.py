"""What a search is: a space to suggest from, what makes a suggestion good, how many there are, and who suggests."""

from __future__ import annotations

import typing
from typing import Any, Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Metric
from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldRuleError
from umd_bench.config.sweep.pruning import Direction, PrunerConfig, rung_stage

Scalar = bool | int | float | str | None
# Trials that differ in these have training losses of different problems, which cannot be ranked.
_CHANGES_LOSS = ("corruption", "loss_weight", "min_snr_gamma", "noise", "method", "labels")


class Dimension(Frozen):
    """What one field may be: a range (``low``, ``high``; ``log``, ``step``, ``int``), or one of ``choices``."""

    low: float | None = None
    high: float | None = None
    log: bool = Field(default=False, description="suggest evenly in the logarithm")
    step: float | None = Field(default=None, gt=0, description="only low + k * step")
    int: bool = Field(default=False, description="whole numbers only")
    choices: tuple[Scalar, ...] | None = None

    @model_validator(mode="after")
    def _range_or_choices(self) -> Dimension:
        if self.choices is not None:
            given = [name for name in ("low", "high", "log", "step", "int") if getattr(self, name) not in (None, False)]
            if given:
                raise FieldRuleError(given[0], "a dimension has choices or a range: expected one of the two")
            if len({repr(value) for value in self.choices}) != len(self.choices) or len(self.choices) < 2:
                raise FieldRuleError("choices", f"{list(self.choices)} is not accepted: expected two or more different values")
            return self
        if self.low is None or self.high is None:
            raise FieldRuleError("low" if self.low is None else "high", "is missing: expected low and high, or choices")
        if self.low >= self.high:
            raise FieldRuleError("high", f"{self.high:g} is not accepted: expected more than low = {self.low:g}")
        if self.log and self.low <= 0:
            raise FieldRuleError("low", f"{self.low:g} is not accepted: a logarithmic range begins above 0")
        if self.log and self.step is not None:
            raise FieldRuleError("step", "a logarithmic range has no steps: expected log or step")
        if self.int and not all(float(value).is_integer() for value in (self.low, self.high, self.step or 1)):
            raise FieldRuleError("int", "expected whole numbers as low, high and step")
        return self

    @property
    def first(self) -> Scalar:
        """Its lowest value, or its first choice."""
        return self.choices[0] if self.choices is not None else self.plain(self.low or 0.0)

    @property
    def last(self) -> Scalar:
        """Its highest value, or its last choice."""
        return self.choices[-1] if self.choices is not None else self.plain(self.high or 0.0)

    def plain(self, value: Any) -> Scalar:
        """A suggested value as the trial gets it: whole, or rounded to four digits of the range and never outside it.

        Four digits keep names and tables readable, and make suggestions that hardly differ one trial.
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
    """``search:`` of a sweep file. Each suggestion is tried with each of the sweep's seeds; its score is the mean over them."""

    sampler: Literal["random", "tpe", "gp", "nsga2"] = "tpe"
    trials: int = Field(ge=1, le=10_000, description="how many suggestions, of each combination of the axes; never more")
    space: dict[str, Dimension] = Field(min_length=1, description="dotted path in the trial, or several with commas -> range")
    objectives: dict[Metric, Direction] = Field(
        min_length=1, max_length=4, description="stage.metric -> maximise or minimise; several give a Pareto front"
    )
    parallel: int = Field(
        default=4, ge=1, le=256, description="suggestions open at a time: the k-th is made from the results before k - parallel"
    )
    startup: int = Field(default=10, ge=1, description="tpe, gp: so many random suggestions first")
    population: int = Field(default=16, ge=2, description="nsga2: suggestions of a generation")
    seed: int = Field(default=0, ge=0, lt=2**31, description="of the suggestions, beside the training seeds")
    pruner: PrunerConfig | None = Field(default=None, description="which trials are ended early; none when left out")

    @model_validator(mode="after")
    def _generations(self) -> SearchConfig:
        if self.sampler == "nsga2" and self.trials <= self.population:
            raise FieldRuleError(
                "population", f"{self.population} leaves {self.trials} trials one random generation: expected less than that"
            )
        return self

    @model_validator(mode="after")
    def _pruned_by_one_metric(self) -> SearchConfig:
        if self.pruner is None:
            return self
        metric, direction = self.pruner.metric, self.pruner.direction
        if metric is None and len(self.objectives) > 1:
            raise FieldRuleError(
                "pruner.metric", "is missing: a search with several objectives prunes by one metric, which has to be named"
            )
        known = self.objectives.get(metric or next(iter(self.objectives)))
        if known is None and direction is None:
            raise FieldRuleError("pruner.direction", f"is missing: {metric} is no objective: expected maximise or minimise")
        if known is not None and direction not in (None, known):
            raise FieldRuleError("pruner.direction", f"{direction!r} is not accepted: as an objective it is to {known}")
        return self

    @property
    def pruned_by(self) -> tuple[str, str, Direction]:
        """The stage and the metric that the pruner compares, and which way is better; only of a search that prunes."""
        assert self.pruner is not None
        metric = self.pruner.metric or next(iter(self.objectives))
        stage, _, name = metric.partition(".")
        return stage, name, self.pruner.direction or self.objectives[metric]

    @property
    def rung_stages(self) -> dict[str, float]:
        """Names that a rung's probe or samples may have in a trial, with the share of the training; empty without a pruner."""
        if self.pruner is None:
            return {}
        return {rung_stage(self.pruned_by[0], share): share for share in self.pruner.rungs}

    def identity(self) -> dict[str, Any]:
        """What the suggestions depend on, as plain values: all but how many there are. A field of later versions that is idle
        is left out, so that a search goes on under them."""
        return self.model_dump(mode="json", exclude={"trials"} | ({"pruner"} if self.pruner is None else set()))

    def changing_the_loss(self) -> list[str]:
        """Paths of the space whose values make training losses of trials differ in meaning."""
        paths = [path.strip() for axis in self.space for path in axis.split(",")]
        return [path for path in paths if set(path.split(".")) & set(_CHANGES_LOSS)]
