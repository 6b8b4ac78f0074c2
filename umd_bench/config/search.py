"""What a search is: a space to suggest from, what makes a suggestion good, how many there are, and who suggests."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from umd_bench.config.errors import FieldRuleError
from umd_bench.config.frozen import Frozen

Direction = Literal["maximise", "minimise"]
Metric = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*\.[A-Za-z0-9_.:@-]+$")]
Scalar = bool | int | float | str | None


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

    @model_validator(mode="after")
    def _generations(self) -> SearchConfig:
        if self.sampler == "nsga2" and self.trials <= self.population:
            raise FieldRuleError(
                "population", f"{self.population} leaves {self.trials} trials one random generation: expected less than that"
            )
        return self
