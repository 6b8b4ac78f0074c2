"""``umd-bench evaluate``: the trial that probes one finished run and scores its samples, whether or not a sweep does so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.documents.document import Document, Location, parse_set
from umd_bench.config.documents.presets import load_profile, with_protocols
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec, stage_specs
from umd_bench.config.trial.trial import TrialConfig
from umd_bench.data.datasets import data_facts
from umd_bench.data.packs.manifest import data_root as default_data_root
from umd_bench.evaluation.extractors.contract import INCEPTION
from umd_bench.evaluation.extractors.registry import extractor_for
from umd_bench.orchestration.runs.find_run import find_run
from umd_bench.store import RunDir, TrialRecord, list_sweeps, read_sweep

# A sweep's stage has values of the right-hand fields that fit its value of the left-hand field. If ``sets`` give another value
# of the left-hand field, the sweep's values of the right-hand fields are dropped.
_DEPENDENT = {
    "sampler": {"eta"},
    "reference": {"reference_sha256", "held_out"},
    "choose": {"t", "block", "pool"},
    **{field: {"choose"} for field in ("t", "block", "pool")},
}


@dataclass(frozen=True)
class SweepStage:
    """The fields of a sweep's stage, and the trial it belongs to, as ``SWEEP/TRIAL``."""

    trial: str
    fields: dict[str, Any]


def evaluation_trial(
    root: Path,
    key: str,
    sets: Sequence[str],
    profiles: Sequence[str] = (),
    defaults: Mapping[str, SweepStage] | None = None,
    data_root: Path | None = None,
) -> Trial:
    """The trial of the run, extended by a ``probe`` stage and, if its model can be sampled, a ``generate`` stage.

    ``profiles`` (config/presets/profiles) say how samples are drawn and scored; with several, each has its own stage,
    ``generate_<profile>``. A profile's sFID is left out if no extractor has spatial features (:func:`left_out_notes`). ``sets``
    are ``probe.FIELD=value`` and ``generate.FIELD=value``; the latter apply to every profile. The other fields of ``probe``,
    and of ``generate`` if there is no profile, come from ``defaults`` (:func:`sweep_stages`). ``data_root`` holds the
    extractors that were trained on users' data (None: the default one). Raises :class:`UserError`.
    """
    run = find_run(root, key)
    spec = run.config()
    can_sample = spec.model.can_sample
    stage_names = _generate_stages(profiles)
    generate = list(stage_names.values()) or ["generate"]
    data_root = data_root if data_root is not None else default_data_root()
    common: dict[str, Any] = {}
    if can_sample:
        extractor = extractor_for(data_facts(spec.data, root=data_root), data_root)
        common = {"extractor": extractor, "clip": spec.data.vae is None}
    stages = _lineage(root, spec)
    stages["probe"] = {"kind": "probe", "parent": spec.kind}
    if can_sample:
        stages |= {name: {"kind": "generate", "parent": spec.kind, **(common if profiles else {})} for name in generate}
    document = Document({"stages": stages})
    if can_sample:
        for profile, name in stage_names.items():
            document = load_profile(profile).below("stages", name).over(document)
    for option in sets:
        path, value, place = parse_set(option)
        if path[0] not in ("probe", "generate"):
            raise UserError(f"{place} is not accepted: expected probe.FIELD=value or generate.FIELD=value")
        if path[0] == "generate" and not can_sample:
            raise UserError(f"{place} is not accepted: run {run.key} has the family {spec.model.family}, which has no sampler")
        for name in generate if path[0] == "generate" else ["probe"]:
            document = document.patched(("stages", name, *path[1:]), value, place)
    document = _without_impossible_sfid(document, stage_names)
    rest = {name: getattr(spec, name).model_dump(mode="json") for name in ("model", "data", "noise", "resources")}
    document = with_protocols(document)
    below = {
        kind: _without_dependent(stage.fields, document.value["stages"][kind])
        for kind, stage in (defaults or {}).items()
        if kind == "probe" or (can_sample and not profiles)
    }
    if can_sample and not profiles:
        below["generate"] = {**common, "n": 500, "steps": 50, **below.get("generate", {})}
    document = document.over(Document({"method": "run", "seed": spec.seed, **rest, "stages": below}))
    config = validate(TrialConfig, document)
    return Trial(config, {}, stage_specs(config, data_root), document)


def sweep_stages(root: Path, key: str) -> dict[str, SweepStage]:
    """The sweep stages in ``root`` that probe and score the run, by kind, so that an evaluation can reuse their results.

    Of several stages of a trial, such as ``probe`` and ``best_probe``, the one whose name is its kind counts. A kind is
    missing if no sweep has such a stage, or if the fields of such stages differ. Stages that read other data or an earlier
    snapshot do not count. Raises :class:`UserError` if ``key`` names no run with weights.
    """
    run = find_run(root, key)
    by_kind: dict[str, dict[str, SweepStage]] = {"probe": {}, "generate": {}}
    for sweep in list_sweeps(root):
        for trial in read_sweep(root, sweep).trials:
            if run.key not in trial.stages.values():
                continue
            children = dict(_scored_children(root, run, trial))
            for name, spec in children.items():
                if name == spec.kind or spec.kind not in children:
                    fields = spec.stage.model_dump(mode="json", exclude={"kind", "parent"})
                    by_kind[spec.kind].setdefault(spec.key, SweepStage(f"{sweep}/{trial.id}", fields))
    return {kind: next(iter(stages.values())) for kind, stages in by_kind.items() if len(stages) == 1}


def _scored_children(root: Path, run: RunDir, trial: TrialRecord) -> Iterator[tuple[str, StageSpec]]:
    """Name and spec of the trial's stages that probe or score the end of the run on its own data, if they have begun."""
    for name, key in trial.stages.items():
        child = RunDir(root, key)
        if (child.path / "config.yaml").exists() and (spec := child.config()).parent_key == run.key:
            stage = spec.stage
            if isinstance(stage, ProbeStage | GenerateStage) and stage.snapshot is None and spec.input_data == spec.data:
                yield name, spec


def _without_dependent(fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The ``fields`` of a sweep's stage without those that do not fit the ``given`` ones."""
    decided = (field for field, value in given.items() if value is not None)
    dropped = set[str]().union(*(_DEPENDENT.get(field, set()) for field in decided))
    return {name: value for name, value in fields.items() if name not in dropped}


def left_out_notes(trial: Trial, profiles: Sequence[str]) -> Iterator[str]:
    """A sentence for each profile with a score that the trial's extractors cannot give."""
    for profile, name in _generate_stages(profiles).items():
        stage = trial.specs[name].stage if name in trial.specs else None
        if isinstance(stage, GenerateStage) and "sfid" in {*load_profile(profile).value["scores"]} - {*stage.scores}:
            yield f"{profile} is scored without sfid: {stage.extractor} has no spatial features, only {INCEPTION} has"


def _lineage(root: Path, spec: StageSpec) -> dict[str, Any]:
    """The run's stage and its ancestors, by name, as fields of a document."""
    stages: dict[str, Any] = {}
    name = spec.kind
    while True:
        stages[name] = spec.stage.model_dump(mode="json")
        if spec.parent_key is None or spec.stage.parent is None:
            return stages
        name, spec = spec.stage.parent, RunDir(root, spec.parent_key).config()


def _generate_stages(profiles: Sequence[str]) -> dict[str, str]:
    """The name of each profile's generate stage."""
    names = list(dict.fromkeys(profiles))
    return {name: f"generate_{name.replace('-', '_')}" if len(names) > 1 else "generate" for name in names}


def _without_impossible_sfid(document: Document, stage_names: Mapping[str, str]) -> Document:
    """The document without a profile's sFID in stages whose extractors have no spatial features."""
    for profile, name in stage_names.items():
        stage = document.value["stages"].get(name, {})
        extractors = [stage.get("extractor"), *stage.get("more_extractors", [])]
        if "sfid" in stage.get("scores", []) and INCEPTION not in extractors:
            scores = [score for score in stage["scores"] if score != "sfid"]
            document = document.patched(("stages", name, "scores"), scores, Location(f"--profile {profile}"))
    return document
