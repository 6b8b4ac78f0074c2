"""One trained or imported run, looked at by hand: samples into a picture, or an evaluation that no sweep asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umd_bench.config.documents.document import Document, Place, parse_set
from umd_bench.config.documents.probe_protocols import with_protocols
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import UserError, one_of
from umd_bench.config.sweep.resolve import Trial
from umd_bench.config.sweep.score_profiles import load_profile
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import stage_specs
from umd_bench.config.trial.train_stage import WeightsStage
from umd_bench.config.trial.trial import TrialConfig
from umd_bench.data.datasets import data_facts
from umd_bench.data.packs.pack import open_data
from umd_bench.data.vae import decoder_of, rounded
from umd_bench.engine.device import pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.samplers import generate
from umd_bench.engine.training.snapshot import restore_sampled
from umd_bench.evaluation.extractors.registry import INCEPTION, extractor_for
from umd_bench.evaluation.samples.grids import draw_grid, grid_rows
from umd_bench.evaluation.samples.sample_files import SampleWriter
from umd_bench.orchestration.monitor.lookup import NamedRun, lookup_stages
from umd_bench.store import RunDir, list_sweeps, read_sweep
from umd_bench.store.files import require_writable, write_atomic

_TRAINED = ("pretrain", "finetune", "import")
# A field that is set by hand -> what a sweep's stage has beside it and belongs to its old value.
_BELONGS_TO = {"sampler": "eta", "reference": "reference_sha256"}


@dataclass(frozen=True)
class Followed:
    """A stage of a sweep that an evaluation is like: the trial it is of, and its fields."""

    trial: str
    fields: dict[str, Any]


def find_run(root: Path, what: str) -> RunDir:
    """The finished run with weights that ``what`` means: a key, or the beginning of one, or a trial, as `logs` takes them.

    Of a trial it is the last stage that gives weights, or the one named after a colon: ``SWEEP/TRIAL:pretrain``. Raises
    :class:`UserError` where there is none, or more than one.
    """
    found, stage = _stages_meant(root, what)
    begun = {one.name: one.run for one in found if (one.run.path / "config.yaml").exists()}
    trained = {name: run for name, run in begun.items() if isinstance(run.config().stage, WeightsStage)}
    if not trained:
        it_is = f"it is a {found[0].run.config().kind} stage" if len(found) == 1 else "no training of the trial has begun"
        raise UserError(f"RUN = {what!r} is not accepted: {it_is}, expected a pretrain, finetune or import stage")
    if stage is not None and stage not in trained:
        raise UserError(f"RUN = {what!r} is not accepted: {one_of(trained)} after the colon")
    to_come = [one.name for one in found if one.name in _TRAINED and one.name not in begun]
    if stage is None and to_come:
        there = f"{what}:{list(trained)[-1]}"
        raise UserError(f"RUN = {what!r} is not accepted: its {to_come[-1]} has not begun; {there} is what there is")
    run = list(trained.values())[-1] if stage is None else trained[stage]
    if run.result() is None:
        raise UserError(f"RUN = {what!r} is not accepted: {run.config().kind} {run.key} has no result yet")
    return run


def _stages_meant(root: Path, what: str) -> tuple[list[NamedRun], str | None]:
    """The stages of a key or of a trial, and the one named after a colon; names of trials may have colons too."""
    trial, colon, stage = what.rpartition(":")
    try:
        return lookup_stages(root, what), None
    except UserError as error:
        unknown = UserError(f"RUN = {error}")
    if not colon:
        raise unknown
    try:
        return lookup_stages(root, trial), stage
    except UserError:
        raise unknown from None


def evaluation_trial(
    root: Path, key: str, sets: Sequence[str], profiles: Sequence[str] = (), followed: Mapping[str, Followed] | None = None
) -> Trial:
    """The trial that the run belongs to, with a ``probe`` and, where its model can be sampled, a ``generate`` stage on the end.

    ``profiles`` (profiles.py) say how samples are drawn and scored; of several each has a ``generate_<profile>`` stage.
    Without Inception's features it has no sFID (:func:`left_out` says so). What is ``followed`` (:func:`sweeps_stages`) lies
    beneath: the probe always, the samples where no profile is given. ``sets`` are ``probe.FIELD=value`` and
    ``generate.FIELD=value``, the latter for every profile. Raises :class:`UserError`.
    """
    run = find_run(root, key)
    spec = run.config()
    stages: dict[str, Any] = {}
    name, line = spec.kind, spec
    while True:
        stages[name] = line.stage.model_dump(mode="json")
        if line.parent_key is None or line.stage.parent is None:
            break
        name, line = line.stage.parent, RunDir(root, line.parent_key).config()
    stages["probe"] = {"kind": "probe", "parent": spec.kind}
    drawn = _stages_of(profiles)
    generated = list(drawn.values()) or ["generate"]
    common = {"extractor": extractor_for(spec.data.name), "clip": spec.data.vae is None} if spec.model.can_sample else {}
    if spec.model.can_sample:
        stages |= {name: {"kind": "generate", "parent": spec.kind, **(common if profiles else {})} for name in generated}
    document = Document({"stages": stages})
    if spec.model.can_sample:
        for profile, name in drawn.items():
            document = load_profile(profile).below("stages", name).over(document)
    given: set[str] = set()
    for option in sets:
        path, value, place = parse_set(option)
        given |= {str(field) for field in path[1:2] if path[0] == "generate"}
        if path[0] not in ("probe", "generate"):
            raise UserError(f"{place} is not accepted: expected probe.FIELD=value or generate.FIELD=value")
        if path[0] == "generate" and not spec.model.can_sample:
            raise UserError(f"{place} is not accepted: run {run.key} has the family {spec.model.family}, which has no sampler")
        for name in generated if path[0] == "generate" else ["probe"]:
            document = document.patched(("stages", name, *path[1:]), value, place)
    document = _less_places(document, drawn)
    rest = {name: getattr(spec, name).model_dump(mode="json") for name in ("model", "data", "noise", "resources")}
    beneath = {kind: one.fields for kind, one in (followed or {}).items() if kind == "probe"}
    if spec.model.can_sample and not profiles:
        idle = {_BELONGS_TO[field] for field in given & _BELONGS_TO.keys()}
        own = followed["generate"].fields if followed and "generate" in followed else {}
        kept = {name: value for name, value in own.items() if name not in idle}
        beneath["generate"] = {**common, "n": 500, "steps": 50, **kept}
    document = with_protocols(document).over(Document({"method": "run", "seed": spec.seed, **rest, "stages": beneath}))
    config = validate(TrialConfig, document)
    return Trial(config, {}, stage_specs(config), document)


def sweeps_stages(root: Path, key: str) -> dict[str, Followed]:
    """How sweeps here probe and score the run, by kind of stage: what an evaluation follows, so that its results are theirs.

    A kind is left out where none does or trials differ in it, and so are probes of other data and snapshots on the way. Raises
    :class:`UserError` for a key that is no run with weights.
    """
    run = find_run(root, key)
    found: dict[str, dict[str, Followed]] = {"probe": {}, "generate": {}}
    for sweep in list_sweeps(root):
        for trial in read_sweep(root, sweep).trials:
            if run.key not in trial.stages.values():
                continue
            for child in (RunDir(root, other) for other in trial.stages.values()):
                spec = child.config() if (child.path / "config.yaml").exists() else None
                if spec is None or spec.parent_key != run.key or spec.kind not in found:
                    continue
                stage = spec.stage
                if isinstance(stage, ProbeStage | GenerateStage) and stage.snapshot is None and spec.reads == spec.data:
                    fields = stage.model_dump(mode="json", exclude={"kind", "parent"})
                    found[spec.kind].setdefault(spec.key, Followed(f"{sweep}/{trial.id}", fields))
    return {kind: next(iter(one.values())) for kind, one in found.items() if len(one) == 1}


def left_out(trial: Trial, profiles: Sequence[str]) -> Iterator[str]:
    """A sentence for each profile that asks for scores which the trial's extractor cannot give."""
    for profile, name in _stages_of(profiles).items():
        stage = trial.specs[name].stage if name in trial.specs else None
        if isinstance(stage, GenerateStage) and "sfid" in {*load_profile(profile).value["scores"]} - {*stage.scores}:
            yield f"{profile} is scored without sfid: {stage.extractor} has no spatial features, only {INCEPTION} has"


def _stages_of(profiles: Sequence[str]) -> dict[str, str]:
    """The name of each profile's stage."""
    names = list(dict.fromkeys(profiles))
    return {name: f"generate_{name.replace('-', '_')}" if len(names) > 1 else "generate" for name in names}


def _less_places(document: Document, drawn: Mapping[str, str]) -> Document:
    """The document without a profile's sFID where no extractor has spatial features."""
    for profile, name in drawn.items():
        stage = document.value["stages"].get(name, {})
        extractors = [stage.get("extractor"), *stage.get("more_extractors", [])]
        if "sfid" in stage.get("scores", []) and INCEPTION not in extractors:
            scores = [score for score in stage["scores"] if score != "sfid"]
            document = document.patched(("stages", name, "scores"), scores, Place(f"--profile {profile}"))
    return document


def draw_samples(
    root: Path, key: str, out: Path | None, settings: GenerateStage, seed: int, *, data_root: Path, npz: Path | None = None
) -> None:
    """Draw ``settings.n`` samples of the run's last snapshot, class by class in turn where it knows classes.

    The first of them go into the PNG ``out``, all into ``npz`` in the format of sample_files.py, as they are drawn; either may
    be None. Latents are not clipped, and are decoded by the VAE in their pack below ``data_root``; images need no data. Raises
    :class:`UserError`, before anything is drawn where a file cannot be written.
    """
    run = find_run(root, key)
    spec = run.config()
    train = spec.stage
    assert isinstance(train, WeightsStage)
    for path, option in ((out, "--out"), (npz, "--npz")):
        if path is not None:
            require_writable(path.parent, f"the folder of {option}")
    data = data_facts(spec.data, root=data_root)
    device = pick_device(spec.resources.device)
    decode = rounded if data.vae is None else decoder_of(open_data(spec.data, data_root), device)
    settings = settings.model_copy(update={"clip": settings.clip and data.vae is None})
    model = restore_sampled(run, train.nimg, source=data, ema=settings.ema and train.keeps_average, device=device)
    label = torch.arange(settings.n) % data.classes if train.labels else None
    rows = grid_rows(settings.n, label, data.classes)
    pictures: dict[int, Tensor] = {index: torch.empty(0) for row in rows for index in row}
    with nullcontext() if npz is None else SampleWriter(npz, settings.n, label) as writer:
        for first in range(0, settings.n, settings.batch):
            indices = range(first, min(first + settings.batch, settings.n))
            asked = label[indices.start : indices.stop].to(device) if label is not None else None
            drawn = generate(model, NoiseProcess(spec.noise, device), settings, label=asked, indices=indices, seed=seed)
            images = decode(drawn)
            pictures |= {i: images[i - first].clone() for i in indices if i in pictures}
            if writer is not None:
                writer.add(images)
    if out is not None:
        write_atomic(out, draw_grid([[pictures[i] for i in row] for row in rows if row]))
