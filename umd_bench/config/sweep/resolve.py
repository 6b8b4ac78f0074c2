"""From files to trials: presets, tiers, ``extends``, ``--set`` and axes become fully specified :class:`TrialConfig` objects.

A trial's fields, later ones winning: ``presets/base.yaml``, the method's preset, the tier, the tier's own words about that
method, the file's ``trial`` (or the trial file itself), ``--set``, the axis values. A stage that any of them sets to null is
left out, whatever the others say of it.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from umd_bench.config.documents.document import Document, Path_, Place, parse_set, read_document
from umd_bench.config.documents.probe_protocols import FIELD as PROTOCOL
from umd_bench.config.documents.probe_protocols import with_protocols
from umd_bench.config.documents.validation import located, validate
from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.gc_pause import uncollected
from umd_bench.config.sweep.arms import arm_name, arm_places
from umd_bench.config.sweep.sweep import SweepConfig, axis_paths
from umd_bench.config.trial.sizes import expanded, expanded_value
from umd_bench.config.trial.stage_spec import StageSpec, reseeded, stage_specs
from umd_bench.config.trial.trial import TrialConfig

PRESETS = Path(__file__).parents[1] / "presets"


@dataclass(frozen=True)
class Trial:
    """A resolved trial of a sweep: its config, its axis values, its stages by name (parents first) and its sources."""

    config: TrialConfig
    axes: dict[str, Any]
    specs: dict[str, StageSpec]
    document: Document

    @property
    def id(self) -> str:
        """``mask_ratio=0.375,seed=0``: unique in its sweep."""
        return ",".join([*filter(None, [arm_name(self.axes)]), f"seed={self.config.seed}"])

    def located(self, error: FieldError) -> UserError:
        """The error with the file and line its field was read from."""
        return located(error, self.document)


@dataclass(frozen=True)
class Sweep:
    """A resolved sweep: what its file says, and its trials in the order of the axes; of a search none yet."""

    config: SweepConfig
    trials: tuple[Trial, ...]
    document: Document = field(default_factory=lambda: Document({}))

    @property
    def arms(self) -> list[dict[str, Any]]:
        """Every combination of the axes, path -> value; one empty one where there are none."""
        axes = self.config.axes
        return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]

    @property
    def baseline(self) -> dict[str, Any] | None:
        """Axis -> value, as its trials have them, of the arm that the report compares the others with; None for none."""
        given = self.config.report.baseline
        if given is None:
            return None
        at = 0
        for path, place in arm_places(self.config.axes, given).items():
            at = at * len(self.config.axes[path]) + place
        return self.trials[at * len(self.config.seeds)].axes

    def suggested(self, arm: dict[str, Any], values: dict[str, Any]) -> list[Trial]:
        """The trials of a search's suggestion for an arm, one a seed. Raises :class:`UserError` where a trial refuses it."""
        space = {path: (value, ("search", "space", path)) for path, value in values.items()}
        varied = {path: (value, ("axes", path)) for path, value in arm.items()} | space
        return _varied(self.config, self.document, varied, _Ground.of(self.config, self.document))

    def corners(self) -> list[Trial]:
        """Trials of a search that tell whether its space is sound: the first value of each dimension, and each last one.

        Raises :class:`UserError` for the first that a trial does not accept.
        """
        search = self.config.search
        if search is None:
            return []
        first = {path: dimension.first for path, dimension in search.space.items()}
        lasts = [{**first, path: dimension.last} for path, dimension in search.space.items()]
        return [self.suggested(arm, values)[0] for arm in self.arms for values in (first, *lasts)]


def json_schema(what: str) -> str:
    """The JSON Schema of a sweep or trial file, as text; :class:`UserError` for another word."""
    models: dict[str, type[SweepConfig | TrialConfig]] = {"sweep": SweepConfig, "trial": TrialConfig}
    if what not in models:
        raise UserError(f"{what!r} is not accepted: {one_of(models)}")
    return json.dumps(models[what].model_json_schema(), indent=2) + "\n"


def method_names() -> list[str]:
    """The method presets there are."""
    return list(_names("methods"))


def tier_names() -> list[str]:
    """The tiers there are."""
    return list(_names("tiers"))


@uncollected()
def load_sweep(path: Path, *, tier: str | None = None, sets: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and expand it to its trials. Raises :class:`UserError` for the first mistake found."""
    document = expanded(read_document(path), "trial")
    if tier is not None:
        document = document.patched(("tier",), tier, Place("--tier"))
    for option in sets:
        at, value, place = parse_set(option)
        if at[0] == "axes" and len(at) > 1:  # an axis is named by a path with dots of its own
            at = ("axes", option.partition("=")[0].removeprefix("axes."))
        if at[:2] == ("search", "space") and len(at) > 2:
            at = ("search", "space", option.partition("=")[0].removeprefix("search.space."))
        if at[:2] == ("report", "baseline") and len(at) > 2:
            at = ("report", "baseline", option.partition("=")[0].removeprefix("report.baseline."))
        document = document.patched(at, expanded_value(at, value, place) if at[0] == "trial" else value, place)
    _refuse_fields_of_a_trial(document)
    config = validate(SweepConfig, document)
    return Sweep(config, () if config.search is not None else tuple(_expand(config, document)), document)


def load_trial(what: str, *, tier: str | None = None, sets: Sequence[str] = ()) -> Trial:
    """A trial from the name of a method, or from a file: fields of a trial, and ``tier`` where they build on one."""
    if what in method_names():
        document = Document({"method": what, "tier": "digits"})
    else:
        expected = f"a trial's YAML file, or a method: {', '.join(method_names())}"
        document = expanded(read_document(Path(what), expected=expected))
    for option in sets:
        at, value, place = parse_set(option)
        document = document.patched(at, expanded_value(at, value, place), place)
    if tier is not None:
        document = document.patched(("tier",), tier, Place("--tier"))
    _refuse_fields_of_a_sweep(document)
    own = document.without("tier")
    return _trial(own, _Ground(own, document.value.get("tier"), document.place(("tier",))), {})


def _refuse_fields_of_a_trial(document: Document) -> None:
    """Raise :class:`UserError` where a sweep has at its top what belongs below ``trial``, or a single seed."""
    one_seed = ("trial", "seed") if "seed" in document.part("trial").value else ("seed",)
    if one_seed in document.places:
        raise UserError(
            f"{document.place(one_seed)}: {'.'.join(one_seed)} is not accepted: expected seeds, a list, as in seeds: [0, 1, 2]"
        )
    found = [name for name in document.value if name in TrialConfig.model_fields and name not in SweepConfig.model_fields]
    if isinstance(document.value.get("stages"), dict):  # a sweep's own is a list of names
        found.append("stages")
    if not found:
        return
    place = document.place((found[0],))
    if place is not None and place.line is None:
        meant = place.source.replace("--set ", "--set trial.", 1)
        raise UserError(f"{place} is not accepted: {found[0]} is a field of a trial: expected {meant}=... in a sweep")
    alone = not {"trial", "axes", "search"} & document.value.keys()
    raise UserError(
        f"{place}: {found[0]} is a field of a trial: "
        + ("expected a sweep's file; `umd-bench train` runs a trial" if alone else "in a sweep it stands below trial")
    )


def _refuse_fields_of_a_sweep(document: Document) -> None:
    """Raise :class:`UserError` where a trial's file or its ``--set`` speaks of a sweep."""
    name = next((name for name in ("trial", "axes", "seeds", "search") if name in document.value), None)
    if name is None:
        return
    place = document.place((name,))
    if place is not None and place.line is not None:
        raise UserError(f"{place}: {name} is a field of a sweep: expected a trial's file; `umd-bench sweep` runs a sweep")
    advice = {"trial": "no trial. before a trial's own field", "seeds": "one number, as in --set seed=0"}
    raise UserError(f"{place} is not accepted: {name} is a field of a sweep: expected {advice.get(name, 'a field of a trial')}")


def _expand(config: SweepConfig, document: Document) -> list[Trial]:
    trials = []
    paths, ground = list(config.axes), _Ground.of(config, document)
    for indices in itertools.product(*(range(len(values)) for values in config.axes.values())):
        chosen = zip(paths, indices, strict=True)
        varied: dict[str, tuple[Any, Path_]] = {path: (config.axes[path][i], ("axes", path, i)) for path, i in chosen}
        trials += _varied(config, document, varied, ground)
    return trials


def _varied(config: SweepConfig, document: Document, varied: Mapping[str, tuple[Any, Path_]], ground: _Ground) -> list[Trial]:
    """The sweep's trials with these values, one a seed; with each the path in the document at which it, or its range, is."""
    patch = ground.own
    for path, (value, given_at) in varied.items():
        place = document.place(given_at) or Place(str(given_at[0]))
        for name in axis_paths(path):
            at = tuple(name.split("."))
            patch = patch.patched(at, expanded_value(at, value, place), place)
    patch = patch.patched(("seed",), config.seeds[0], document.place(("seeds",)) or Place("seeds"))
    first = _trial(patch, ground, {path: value for path, (value, _) in varied.items()})
    return _of_seeds(_only(first, config.stages, document), config.seeds)


def _of_seeds(first: Trial, seeds: Sequence[int]) -> list[Trial]:
    """The trial, made with the first seed, with each: the sweep has checked them, and no rule of a trial reads its seed."""
    trials = [first]
    for seed, specs in zip(seeds[1:], reseeded(first.specs, seeds[1:]), strict=True):
        document = replace(first.document, value={**first.document.value, "seed": seed})
        trials.append(Trial(first.config.model_copy(update={"seed": seed}), first.axes, specs, document))
    return trials


@dataclass(frozen=True)
class _Ground:
    """What trials of one file stand on: the file's ``own`` fields of a trial, and the layers beneath by method, merged once."""

    own: Document
    tier: Any
    tier_place: Place | None
    _merged: dict[str, _Layers] = field(default_factory=dict)

    @classmethod
    def of(cls, config: SweepConfig, document: Document) -> _Ground:
        """A sweep's."""
        return cls(document.part("trial"), config.tier, document.place(("tier",)))

    def beneath(self, method: str) -> _Layers:
        """Presets and tier for the method, which there is."""
        if method not in self._merged:
            layers = [_preset("base.yaml"), _preset(f"methods/{method}.yaml")]
            if self.tier is not None:
                scale = expanded(expanded(_tier(self.tier, self.tier_place), "trial"), "methods", method)
                layers += [scale.part("trial"), scale.part("methods", method)]
            self._merged[method] = functools.reduce(_Layers.under, layers, _Layers(Document({}), frozenset()))
        return self._merged[method]


@dataclass(frozen=True)
class _Layers:
    """Documents on top of each other, the last one winning, and the stages that one of them sets to null."""

    merged: Document
    null: frozenset[str]

    def under(self, layer: Document) -> _Layers:
        """With one more layer on top, its protocols as their fields."""
        layer = with_protocols(layer)
        stages = layer.value.get("stages")
        null = {name for name, stage in stages.items() if stage is None} if isinstance(stages, dict) else set()
        return _Layers(layer.over(self.merged), self.null | null)

    @property
    def document(self) -> Document:
        """What the trial is read from: without the stages that a layer sets to null, whatever the others say of them."""
        if not self.null:
            return self.merged
        kept = {name: stage for name, stage in self.merged.value["stages"].items() if name not in self.null}
        return replace(self.merged, value={**self.merged.value, "stages": kept})


def _trial(patch: Document, ground: _Ground, axes: dict[str, Any]) -> Trial:
    method = patch.value.get("method", "umd")
    if method not in method_names():
        raise located(FieldError("method", method, one_of(method_names())), patch)
    patch = patch.patched(("method",), method, patch.place(("method",)) or Place("method"))
    document = ground.beneath(method).under(patch).document
    config = validate(TrialConfig, document)
    axes = {
        path: value if _names_fields(path) and isinstance(value, str) else _field(config, axis_paths(path)[0])
        for path, value in axes.items()
    }
    try:
        specs = stage_specs(config)
    except FieldError as error:
        raise located(error, document) from None
    return Trial(config, axes, specs, document)


def _tier(name: Any, place: Place | None) -> Document:
    if isinstance(name, str) and name.endswith((".yaml", ".yml")):
        return read_document(Path(name))
    if name not in tier_names():
        raise UserError(f"{place}: tier = {name!r} is not accepted: {one_of(tier_names())}, or the path of a YAML file")
    return _preset(f"tiers/{name}.yaml")


@functools.cache
def _names(folder: str) -> tuple[str, ...]:
    """Of the presets in one folder, which does not change while a command runs."""
    return tuple(sorted(path.stem for path in (PRESETS / folder).glob("*.yaml")))


@functools.cache
def _preset(name: str) -> Document:
    return read_document(PRESETS / name, name=f"presets/{name}")


def _only(trial: Trial, stages: tuple[str, ...] | None, document: Document) -> Trial:
    if stages is None:
        return trial
    for name in stages:
        if name not in trial.specs:
            raise located(FieldError("stages", name, one_of(trial.specs)), document)
    wanted = {ancestor for name in stages for ancestor in trial.config.lineage(name)}
    return Trial(trial.config, trial.axes, {k: v for k, v in trial.specs.items() if k in wanted}, trial.document)


def _names_fields(path: str) -> bool:
    """Whether the axis's values may be names that stand for several fields."""
    return path == "model" or axis_paths(path)[0].endswith(f".{PROTOCOL}")


def _field(config: TrialConfig, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value
