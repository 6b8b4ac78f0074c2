"""What a sweep is: a question (axes, seeds) over a tier (scale), and what to report of it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import Annotated, Any

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Name
from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldRuleError
from umd_bench.config.sweep.arms import arm_places
from umd_bench.config.sweep.search import SearchConfig

# What an axis may vary. The rest of a trial is the sweep's own (the seeds) or says nothing about a question (resources).
AXIS_ROOTS = ("method", "model", "noise", "stages")
_PATH = re.compile(r"^[a-z_][a-z0-9_]*(\.[a-z_0-9]+)*$")


def axis_paths(axis: str) -> tuple[str, ...]:
    """The fields that an axis sets: one path, or several joined by commas that take the same value together."""
    return tuple(path.strip() for path in axis.split(","))


def _repeated(values: Iterable[Any]) -> Iterator[Any]:
    """The values that one before them equals. Only those that are no scalars are compared one by one."""
    scalars: set[Any] = set()
    others: list[Any] = []
    for value in values:
        if isinstance(value, Hashable):
            if value in scalars:
                yield value
            scalars.add(value)
        else:
            if value in others:
                yield value
            others.append(value)


class ReportConfig(Frozen):
    """What the table and the figure show."""

    x: str | None = Field(default=None, description="the axis on the figure's x; the first one when left out")
    metrics: tuple[str, ...] = Field(default=(), description="stage.metric names to show; empty: the standard ones")
    baseline: dict[str, Any] | None = Field(
        default=None,
        min_length=1,
        description="axis -> value: the arm that the others are compared with seed by seed; none when left out",
    )


class SweepConfig(Frozen):
    """A sweep file. Its trials are every combination of the axes' values, each with every seed.

    With a ``search``, each combination of the axes (one, where there are none) is searched by itself, and the trials are what
    is suggested there.
    """

    name: Name
    question: str = Field(default="", description="one sentence: what the sweep asks")
    tier: str = Field(default="digits", description="a scale: a name of config/presets/tiers, or the path of a YAML file")
    trial: dict[str, Any] = Field(default_factory=dict, description="fields of the trial over the method's and the tier's")
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict, description="dotted path in the trial, or several with commas -> values"
    )
    search: SearchConfig | None = Field(
        default=None, description="suggestions instead of, or for each combination of, the axes"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(default=[0, 1, 2], min_length=1)
    stages: tuple[Name, ...] | None = Field(default=None, description="run these stages and their parents only")
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _axes(self) -> SweepConfig:
        if self.search is None and "axes" not in self.model_fields_set:
            raise FieldRuleError("axes", "is missing: expected axes, {} where nothing varies but the seed, or a search")
        varied = dict.fromkeys(self.axes, "axes")
        varied |= dict.fromkeys(self.search.space if self.search is not None else (), "search.space")
        if len(varied) < len(self.axes) + (len(self.search.space) if self.search is not None else 0):
            twice = next(axis for axis in self.axes if varied[axis] != "axes")
            raise FieldRuleError("search.space", f"{twice} is named twice: a field can vary along one axis only")
        paths: list[str] = []
        for axis, field in varied.items():
            for path in axis_paths(axis):
                if not _PATH.match(path) or path.split(".")[0] not in AXIS_ROOTS:
                    raise FieldRuleError(
                        field, f"{path!r} is no field of a trial that can vary: expected a path below {', '.join(AXIS_ROOTS)}"
                    )
                if path in paths:
                    raise FieldRuleError(field, f"{path} is named twice: a field can vary along one axis only")
                paths.append(path)
            if len({path.rsplit(".", 1)[-1] for path in axis_paths(axis)}) > 1:
                raise FieldRuleError(field, f"{axis!r} joins other fields: expected paths that end alike, as in a.nimg, b.nimg")
        for axis, values in self.axes.items():
            for repeated in _repeated(values):
                raise FieldRuleError("axes", f"{axis} lists {repeated!r} twice")
        if len(set(self.seeds)) != len(self.seeds):
            raise FieldRuleError("seeds", f"{self.seeds} lists one twice")
        if self.report.x is not None and self.report.x not in varied:
            raise FieldRuleError("report.x", f"{self.report.x!r} is not an axis: expected one of {', '.join(varied)}")
        return self

    @model_validator(mode="after")
    def _baseline(self) -> SweepConfig:
        given = self.report.baseline
        if given is None:
            return self
        if self.search is not None:
            raise FieldRuleError(
                "report.baseline",
                "a search's arms are not known beforehand: expected none; `umd-bench table NAME --against` compares afterwards",
            )
        try:
            arm_places(self.axes, given)
        except ValueError as error:
            raise FieldRuleError("report.baseline", f"{error}; null compares with none") from None
        return self
