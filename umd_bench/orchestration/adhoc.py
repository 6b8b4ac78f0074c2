"""One trained or imported run, looked at by hand: samples into a picture, or an evaluation that no sweep asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from umd_bench.config.documents import Document, parse_set
from umd_bench.config.errors import UserError
from umd_bench.config.generating import GenerateStage
from umd_bench.config.resolve import Trial
from umd_bench.config.stage import stage_specs
from umd_bench.config.training import WeightsStage
from umd_bench.config.trial import TrialConfig
from umd_bench.config.validation import validate
from umd_bench.data.loader import to_uint8
from umd_bench.data.sources import data_facts
from umd_bench.engine.families import can_sample
from umd_bench.engine.loop import pick_device
from umd_bench.engine.noise_process import NoiseProcess
from umd_bench.engine.samplers import generate
from umd_bench.engine.snapshot import restore_sampled
from umd_bench.evaluation.extractors import extractor_for
from umd_bench.evaluation.grids import draw_grid, grid_rows
from umd_bench.store import RunDir
from umd_bench.store.files import require_writable, write_atomic


def find_run(root: Path, key: str) -> RunDir:
    """The finished run with weights whose key begins with ``key``; :class:`UserError` where there is none or more than one."""
    keys = sorted(path.parent.name for path in (root / "stages").glob("*/config.yaml") if path.parent.name.startswith(key))
    if not keys:
        raise UserError(f"RUN = {key!r} is not accepted: no run in {root} begins so (`umd-bench status SWEEP` shows runs)")
    if len(keys) > 1:
        raise UserError(f"RUN = {key!r} is not accepted: {len(keys)} runs begin so, {', '.join(keys[:4])}; give more of it")
    run = RunDir(root, keys[0])
    kind = run.config().kind
    if not isinstance(run.config().stage, WeightsStage):
        raise UserError(f"RUN = {key!r} is not accepted: it is a {kind} stage, expected a pretrain, finetune or import stage")
    if run.result() is None:
        raise UserError(f"RUN = {key!r} is not accepted: it has no result yet")
    return run


def evaluation_trial(root: Path, key: str, sets: Sequence[str]) -> Trial:
    """The trial that the run belongs to, with a ``probe`` and, where its model can be sampled, a ``generate`` stage on the end.

    ``sets`` are ``probe.FIELD=value`` and ``generate.FIELD=value``. Raises :class:`UserError`.
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
    if can_sample(spec.model):
        stages["generate"] = {
            "kind": "generate",
            "parent": spec.kind,
            "n": 500,
            "steps": 50,
            "extractor": extractor_for(spec.data.name),
        }
    document = Document({"stages": stages})
    for option in sets:
        path, value, place = parse_set(option)
        if path[0] not in ("probe", "generate"):
            raise UserError(f"{place} is not accepted: expected probe.FIELD=value or generate.FIELD=value")
        if path[0] not in stages:
            raise UserError(f"{place} is not accepted: run {run.key} has the family {spec.model.family}, which has no sampler")
        document = document.patched(("stages", *path), value, place)
    rest = {name: getattr(spec, name).model_dump(mode="json") for name in ("model", "data", "noise", "resources")}
    document = document.over(Document({"method": "run", "seed": spec.seed, **rest}))
    config = validate(TrialConfig, document)
    return Trial(config, {}, stage_specs(config), document)


def draw_samples(root: Path, key: str, out: Path, settings: GenerateStage, seed: int, data_root: Path | None = None) -> None:
    """Draw ``settings.n`` samples of the run's last snapshot into the PNG ``out``, class by class where it knows classes.

    Raises :class:`UserError`, before anything is drawn where ``out`` cannot be written.
    """
    run = find_run(root, key)
    spec = run.config()
    train = spec.stage
    assert isinstance(train, WeightsStage)
    require_writable(out.parent, "the folder of --out")
    data = data_facts(spec.data, root=data_root)
    if data.vae is not None:
        raise UserError(f"RUN = {key!r} draws latents of {data.vae}, and this version has no decoder that makes images of them")
    device = pick_device(spec.resources.device)
    model = restore_sampled(run, train.nimg, source=data, ema=settings.ema and train.keeps_average, device=device)
    label = torch.arange(settings.n) % data.classes if train.labels else None
    images = []
    for first in range(0, settings.n, settings.batch):
        indices = range(first, min(first + settings.batch, settings.n))
        asked = label[indices.start : indices.stop].to(device) if label is not None else None
        drawn = generate(model, NoiseProcess(spec.noise, device), settings, label=asked, indices=indices, seed=seed)
        images.append(to_uint8(drawn).cpu())
    pictures = torch.cat(images)
    rows = grid_rows(settings.n, label, data.classes)
    write_atomic(out, draw_grid([[pictures[i] for i in row] for row in rows if row]))
