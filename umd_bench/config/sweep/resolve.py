"""From files to trials: presets, tiers, ``extends``, ``--set`` and axes become fully specified :class:`TrialConfig` objects.

The fields of a trial come from several layers (layers.py); the last are the file, ``--set`` and the axis values.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from umd_bench.config.documents.document import Document, Location, Path_, parse_set, read_document
from umd_bench.config.documents.presets import PROTOCOL, method_names
from umd_bench.config.documents.validation import located, validate
from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.gc_pause import gc_paused
from umd_bench.config.sweep.arms import arm_indices, arm_name
from umd_bench.config.sweep.layers import TrialLayers
from umd_bench.config.sweep.sweep import SweepConfig, axis_paths
from umd_bench.config.trial.data import ScoredSplit
from umd_bench.config.trial.model_names import expand_model_name, expand_model_value
from umd_bench.config.trial.stage_spec import StageSpec, reseeded, stage_specs
from umd_bench.config.trial.trial import TrialConfig


@dataclass(frozen=True)
class Trial:
    """A resolved trial: its config, its axis values, its stages by name (parents first), and the document it was read from."""

    config: TrialConfig
    axes: dict[str, Any]
    specs: dict[str, StageSpec]
    document: Document

    @property
    def id(self) -> str:
        """``mask_ratio=0.375,seed=0``: the axis values and the seed; unique in its sweep."""
        return ",".join([*filter(None, [arm_name(self.axes)]), f"seed={self.config.seed}"])

    def located(self, error: FieldError) -> UserError:
        """The error with the file and line that its field was read from."""
        return located(error, self.document)


@dataclass(frozen=True)
class Sweep:
    """A resolved sweep: its config, and its trials in the order of the axes. A search has no trials yet."""

    config: SweepConfig
    trials: tuple[Trial, ...]
    document: Document = field(default_factory=lambda: Document({}))
    data_root: Path | None = None  # the data root, which holds the classifiers that users trained

    @property
    def arms(self) -> list[dict[str, Any]]:
        """Every combination of the axes, path -> value; a single empty one if there are no axes."""
        axes = self.config.axes
        return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]

    @property
    def baseline(self) -> dict[str, Any] | None:
        """The arm that the report compares the others with: axis path -> validated value. None if it compares nothing."""
        given = self.config.report.baseline
        if given is None:
            return None
        arm = 0
        for path, index in arm_indices(self.config.axes, given).items():
            arm = arm * len(self.config.axes[path]) + index
        return self.trials[arm * len(self.config.seeds)].axes

    def suggested(self, arm: dict[str, Any], values: dict[str, Any]) -> list[Trial]:
        """The trials with suggested ``values`` for an ``arm``, one per seed.

        Raises :class:`UserError` if the values make no valid trial.
        """
        space = {path: (value, ("search", "space", path)) for path, value in values.items()}
        varied = {path: (value, ("axes", path)) for path, value in arm.items()} | space
        return _varied(self.config, self.document, varied, _layers_of(self.config, self.document), self.data_root)

    def corners(self) -> list[Trial]:
        """Trials that show whether a search's space is valid; empty without a search.

        Each arm has one trial with the first value of every dimension. For each dimension it has one more trial, with the last
        value of this dimension and the first values of the others. Raises :class:`UserError` for the first combination that
        makes no valid trial.
        """
        search = self.config.search
        if search is None:
            return []
        first = {path: dimension.first for path, dimension in search.space.items()}
        lasts = [{**first, path: dimension.last} for path, dimension in search.space.items()]
        return [self.suggested(arm, values)[0] for arm in self.arms for values in (first, *lasts)]


def json_schema(kind: str) -> str:
    """The JSON Schema of a file of that ``kind``, sweep or trial, as text. Raises :class:`UserError` for another kind."""
    models: dict[str, type[SweepConfig | TrialConfig]] = {"sweep": SweepConfig, "trial": TrialConfig}
    if kind not in models:
        raise UserError(f"{kind!r} is not accepted: {one_of(models)}")
    return json.dumps(models[kind].model_json_schema(), indent=2) + "\n"


@gc_paused()
def load_sweep(
    path: Path,
    *,
    tier: str | None = None,
    split: str | None = None,
    sets: Sequence[str] = (),
    data_root: Path | None = None,
) -> Sweep:
    """Read a sweep file and expand it to its trials.

    ``tier`` and ``split`` override the file's values, ``sets`` are ``key.path=value`` options. ``data_root`` holds the
    extractors that users trained (None: the trials use none of them). Raises :class:`UserError` for the first mistake.
    """
    document = expand_model_name(read_document(path), "trial")
    if tier is not None:
        document = document.patched(("tier",), tier, Location("--tier"))
    if split is not None:
        document = document.patched(("split",), split, Location("--split"))
    for option in sets:
        at, value, location = parse_set(option)
        if at[0] == "axes" and len(at) > 1:  # the name of an axis is a path, and has dots itself
            at = ("axes", option.partition("=")[0].removeprefix("axes."))
        if at[:2] == ("search", "space") and len(at) > 2:
            at = ("search", "space", option.partition("=")[0].removeprefix("search.space."))
        if at[:2] == ("report", "baseline") and len(at) > 2:
            at = ("report", "baseline", option.partition("=")[0].removeprefix("report.baseline."))
        document = document.patched(at, expand_model_value(at, value, location) if at[0] == "trial" else value, location)
    _refuse_trial_fields(document)
    config = validate(SweepConfig, document)
    trials = () if config.search is not None else tuple(_expand(config, document, data_root))
    return Sweep(config, trials, document, data_root)


def load_trial(
    method_or_file: str,
    *,
    tier: str | None = None,
    split: str | None = None,
    sets: Sequence[str] = (),
    data_root: Path | None = None,
) -> Trial:
    """A trial from the name of a method (at the tier digits), or from a file with fields of a trial and optionally ``tier``.

    A file may also give the ``split`` that every stage is scored on. ``tier``, ``split``, ``sets`` and ``data_root`` are as in
    :func:`load_sweep`. Raises :class:`UserError` for the first mistake.
    """
    if method_or_file in method_names():
        document = Document({"method": method_or_file, "tier": "digits"})
    else:
        expected = f"a trial's YAML file, or a method: {', '.join(method_names())}"
        document = expand_model_name(read_document(Path(method_or_file), expected=expected))
    for option in sets:
        at, value, location = parse_set(option)
        document = document.patched(at, expand_model_value(at, value, location), location)
    if tier is not None:
        document = document.patched(("tier",), tier, Location("--tier"))
    if split is not None:
        document = document.patched(("split",), split, Location("--split"))
    _refuse_sweep_fields(document)
    own = document.without("tier").without("split")
    layers = TrialLayers(own, document.value.get("tier"), document.location(("tier",)), _split(document))
    return _trial(own, layers, {}, data_root)


def _split(document: Document) -> ScoredSplit | None:
    """The split that a trial's file or ``--split`` gives. Raises :class:`UserError` for another name."""
    split: Any = document.value.get("split")
    if split not in (None, *get_args(ScoredSplit)):
        raise located(FieldError("split", split, one_of(get_args(ScoredSplit))), document)
    return cast("ScoredSplit | None", split)


def _refuse_trial_fields(document: Document) -> None:
    """Raise :class:`UserError` if a sweep has fields of a trial at its top level, or a single seed."""
    one_seed = ("trial", "seed") if "seed" in document.part("trial").value else ("seed",)
    if one_seed in document.locations:
        location, name = document.location(one_seed), ".".join(one_seed)
        raise UserError(f"{location}: {name} is not accepted: expected seeds, a list, as in seeds: [0, 1, 2]")
    names = [name for name in document.value if name in TrialConfig.model_fields and name not in SweepConfig.model_fields]
    if isinstance(document.value.get("stages"), dict):  # in a sweep, stages is a list of names
        names.append("stages")
    if not names:
        return
    location = document.location((names[0],))
    if location is not None and location.line is None:
        meant = location.source.replace("--set ", "--set trial.", 1)
        raise UserError(f"{location} is not accepted: {names[0]} is a field of a trial: expected {meant}=... in a sweep")
    alone = not {"trial", "axes", "search"} & document.value.keys()
    raise UserError(
        f"{location}: {names[0]} is a field of a trial: "
        + (
            "expected a sweep's file; `umd-bench train` runs a trial"
            if alone
            else "expected it below trial, since this is a sweep"
        )
    )


def _refuse_sweep_fields(document: Document) -> None:
    """Raise :class:`UserError` if a trial's file or a ``--set`` has a field of a sweep."""
    name = next((name for name in ("trial", "axes", "seeds", "search") if name in document.value), None)
    if name is None:
        return
    location = document.location((name,))
    if location is not None and location.line is not None:
        raise UserError(f"{location}: {name} is a field of a sweep: expected a trial's file; `umd-bench sweep` runs a sweep")
    advice = {"trial": "the field without the prefix 'trial.'", "seeds": "one number, as in --set seed=0"}
    raise UserError(
        f"{location} is not accepted: {name} is a field of a sweep: expected {advice.get(name, 'a field of a trial')}"
    )


def _expand(config: SweepConfig, document: Document, data_root: Path | None) -> list[Trial]:
    """The trials of a sweep without a search, in the order of the axes; the last axis varies fastest."""
    trials = []
    paths, layers = list(config.axes), _layers_of(config, document)
    for indices in itertools.product(*(range(len(values)) for values in config.axes.values())):
        chosen = zip(paths, indices, strict=True)
        varied: dict[str, tuple[Any, Path_]] = {path: (config.axes[path][i], ("axes", path, i)) for path, i in chosen}
        trials += _varied(config, document, varied, layers, data_root)
    return trials


def _varied(
    config: SweepConfig,
    document: Document,
    varied: Mapping[str, tuple[Any, Path_]],
    layers: TrialLayers,
    data_root: Path | None,
) -> list[Trial]:
    """The sweep's trials with the values ``varied``, one per seed.

    ``varied`` maps the path of each axis to its value and to the path in the document where the value, or its range, is given.
    """
    patch = layers.own
    for path, (value, given_at) in varied.items():
        location = document.location(given_at) or Location(str(given_at[0]))
        for name in axis_paths(path):
            at = tuple(name.split("."))
            patch = patch.patched(at, expand_model_value(at, value, location), location)
    patch = patch.patched(("seed",), config.seeds[0], document.location(("seeds",)) or Location("seeds"))
    first = _trial(patch, layers, {path: value for path, (value, _) in varied.items()}, data_root)
    return _of_seeds(_with_stages(first, config.stages, document), config.seeds)


def _of_seeds(first: Trial, seeds: Sequence[int]) -> list[Trial]:
    """The trial with each of ``seeds``. Only ``first``, with the first seed, was validated, since no rule reads the seed."""
    trials = [first]
    for seed, specs in zip(seeds[1:], reseeded(first.specs, seeds[1:]), strict=True):
        document = replace(first.document, value={**first.document.value, "seed": seed})
        trials.append(Trial(first.config.model_copy(update={"seed": seed}), first.axes, specs, document))
    return trials


def _layers_of(config: SweepConfig, document: Document) -> TrialLayers:
    """The layers that all trials of a sweep share."""
    return TrialLayers(document.part("trial"), config.tier, document.location(("tier",)), config.split)


def _trial(patch: Document, layers: TrialLayers, axes: dict[str, Any], data_root: Path | None) -> Trial:
    """The trial whose own fields are ``patch``, with the axis values ``axes``. Raises :class:`UserError` if it is not valid."""
    method = patch.value.get("method", "umd")
    if method not in method_names():
        raise located(FieldError("method", method, one_of(method_names())), patch)
    patch = patch.patched(("method",), method, patch.location(("method",)) or Location("method"))
    document = layers.of_method(method).with_top(patch).document
    config = validate(TrialConfig, document)
    if layers.split is not None:
        config = config.scored_on(layers.split)
    axes = {
        path: value if _names_fields(path) and isinstance(value, str) else _field(config, axis_paths(path)[0])
        for path, value in axes.items()
    }
    try:
        specs = stage_specs(config, data_root)
    except FieldError as error:
        raise located(error, document) from None
    return Trial(config, axes, specs, document)


def _with_stages(trial: Trial, stages: tuple[str, ...] | None, document: Document) -> Trial:
    """The trial with only ``stages`` and their ancestors; None means all. Raises :class:`UserError` for an unknown stage."""
    if stages is None:
        return trial
    for name in stages:
        if name not in trial.specs:
            raise located(FieldError("stages", name, one_of(trial.specs)), document)
    wanted = {ancestor for name in stages for ancestor in trial.config.lineage(name)}
    return Trial(trial.config, trial.axes, {k: v for k, v in trial.specs.items() if k in wanted}, trial.document)


def _names_fields(path: str) -> bool:
    """Whether a value of the axis may be a name that stands for values of several fields (S/4, a protocol)."""
    return path == "model" or axis_paths(path)[0].endswith(f".{PROTOCOL}")


def _field(config: TrialConfig, path: str) -> Any:
    """The value at the dotted ``path``."""
    value: Any = config
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value
