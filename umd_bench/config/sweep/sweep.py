"""A sweep: a question (axes, seeds) at a scale (tier), and the contents of its report."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import Annotated, Any

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Frozen, Name
from umd_bench.config.errors import FieldRuleError
from umd_bench.config.sweep.arms import arm_indices
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.config.trial.data import ScoredSplit

# Fields of a trial that an axis may vary. An axis may not vary the seed, which the sweep sets, or resources, which change at
# most the last bits of a result.
AXIS_ROOTS = ("method", "model", "noise", "stages")
_PATH = re.compile(r"^[a-z_][a-z0-9_]*(\.[a-z_0-9]+)*$")


def axis_paths(axis: str) -> tuple[str, ...]:
    """The fields that an axis sets: one path, or several joined by commas, which all get the same value."""
    return tuple(path.strip() for path in axis.split(","))


def _decides_split(path: str) -> bool:
    """Whether the field at ``path`` says which split a stage scores."""
    return path.startswith("stages.") and path.rsplit(".", 1)[-1] in ("split", "reference", "held_out")


def _repeated(values: Iterable[Any]) -> Iterator[Any]:
    """The values that equal an earlier one. Unhashable values (lists, mappings) are compared one by one."""
    hashed: set[Any] = set()
    others: list[Any] = []
    for value in values:
        if isinstance(value, Hashable):
            if value in hashed:
                yield value
            hashed.add(value)
        else:
            if value in others:
                yield value
            others.append(value)


class ReportConfig(Frozen):
    """The contents of the table and the figure."""

    x: str | None = Field(default=None, description="axis on the figure's x; null: the first axis")
    metrics: tuple[str, ...] = Field(default=(), description="stage.metric names to show; []: the usual ones of each stage")
    baseline: dict[str, Any] | None = Field(
        default=None,
        min_length=1,
        description="axis -> value: the arm that all others are compared with, seed by seed; null: no comparison",
    )


class SweepConfig(Frozen):
    """A sweep file. Its trials are all combinations of the axes' values, each with every seed.

    With a ``search``, every combination of the axes (a single one if there are no axes) is searched separately, and the search
    suggests the trials.
    """

    name: Name = Field(description="name of the sweep, and of its folder in the results")
    question: str = Field(default="", description="one sentence: the question that the sweep answers")
    tier: str = Field(default="digits", description="scale: the name of a tier, or the path of a tier's YAML file")
    split: ScoredSplit | None = Field(
        default=None,
        description="split that every probe and score reads: validation to choose settings, test for the final numbers; null: "
        "each stage's own split",
    )
    trial: dict[str, Any] = Field(
        default_factory=dict, description="fields of all trials; they override the fields of the method and the tier"
    )
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="dotted path of a field of the trial (or several, joined by commas) -> the values that it takes",
    )
    search: SearchConfig | None = Field(
        default=None, description="search for good values, separately for each combination of the axes' values; null: none"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        default=[0, 1, 2], min_length=1, description="training seeds; every combination is run with each of them"
    )
    stages: tuple[Name, ...] | None = Field(
        default=None, description="names of the stages to run, with their parents; null: all stages"
    )
    report: ReportConfig = Field(default=ReportConfig(), description="contents of the table and the figure")

    @model_validator(mode="after")
    def _axes(self) -> SweepConfig:
        if self.search is None and "axes" not in self.model_fields_set:
            raise FieldRuleError("axes", "is missing: expected axes (axes: {} if only the seed varies) or a search")
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
                        field, f"{path!r} cannot be varied: expected the path of a field below {', '.join(AXIS_ROOTS)}"
                    )
                if path in paths:
                    raise FieldRuleError(field, f"{path} is named twice: a field can vary along one axis only")
                paths.append(path)
            if len({path.rsplit(".", 1)[-1] for path in axis_paths(axis)}) > 1:
                raise FieldRuleError(
                    field, f"{axis!r} joins different fields: expected paths with the same end, as in a.nimg, b.nimg"
                )
        if self.split is not None and (decided := [path for path in paths if _decides_split(path)]):
            raise FieldRuleError(
                "split", f"{self.split} is not accepted: it decides {decided[0]}, which varies; leave one of the two out"
            )
        for axis, values in self.axes.items():
            for repeated in _repeated(values):
                raise FieldRuleError("axes", f"{axis} lists {repeated!r} twice: expected each value once")
        if len(set(self.seeds)) != len(self.seeds):
            raise FieldRuleError("seeds", f"{self.seeds} is not accepted: expected each seed once")
        if self.report.x is not None and self.report.x not in varied:
            axes = f"one of {', '.join(varied)}" if varied else "null, since nothing varies"
            raise FieldRuleError("report.x", f"{self.report.x!r} is not an axis: expected {axes}")
        return self

    @model_validator(mode="after")
    def _baseline(self) -> SweepConfig:
        given = self.report.baseline
        if given is None:
            return self
        if self.search is not None:
            raise FieldRuleError(
                "report.baseline",
                "is not accepted with a search, whose arms are not known in advance: expected null; afterwards, "
                "`umd-bench table NAME --against` compares",
            )
        try:
            arm_indices(self.axes, given)
        except ValueError as error:
            raise FieldRuleError("report.baseline", f"{error}; or null for no comparison") from None
        return self
