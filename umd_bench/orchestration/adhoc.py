"""One trained run, looked at by hand: samples into a picture, or an evaluation that no sweep asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umd_bench.config.documents import Document, parse_set
from umd_bench.config.errors import UserError
from umd_bench.config.resolve import Trial
from umd_bench.config.stage import stage_specs
from umd_bench.config.trial import TrainStage, TrialConfig
from umd_bench.config.validation import validate
from umd_bench.evaluation.extractors import extractor_for
from umd_bench.store import RunDir


def find_run(root: Path, key: str) -> RunDir:
    """The finished training run whose key begins with ``key``; :class:`UserError` where there is none or more than one."""
    keys = sorted(path.parent.name for path in (root / "stages").glob("*/config.yaml") if path.parent.name.startswith(key))
    if not keys:
        raise UserError(f"RUN = {key!r} is not accepted: no run in {root} begins so (`umd-bench status SWEEP` shows runs)")
    if len(keys) > 1:
        raise UserError(f"RUN = {key!r} is not accepted: {len(keys)} runs begin so, {', '.join(keys[:4])}; give more of it")
    run = RunDir(root, keys[0])
    kind = run.config().kind
    if not isinstance(run.config().stage, TrainStage):
        raise UserError(f"RUN = {key!r} is not accepted: it is a {kind} stage, expected a pretrain or finetune stage")
    if run.result() is None:
        raise UserError(f"RUN = {key!r} is not accepted: it has no result yet")
    return run


def evaluation_trial(root: Path, key: str, sets: Sequence[str]) -> Trial:
    """The trial that the run belongs to, with a ``probe`` and a ``generate`` stage on the run's last snapshot.

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
        document = document.patched(("stages", *path), value, place)
    rest = {name: getattr(spec, name).model_dump(mode="json") for name in ("model", "data", "noise", "resources")}
    document = document.over(Document({"method": "run", "seed": spec.seed, **rest}))
    config = validate(TrialConfig, document)
    return Trial(config, {}, stage_specs(config), document)
