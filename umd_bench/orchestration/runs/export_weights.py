"""``umd-bench export``: a run's weights as a folder that timm loads, or as a file in the official implementation's layout."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

import umd_bench
from umd_bench.config.errors import UserError, one_of
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage, WeightsStage
from umd_bench.data.datasets import DataFacts, data_facts
from umd_bench.engine.published.small_vision_conversion import to_official
from umd_bench.engine.timm_vit import ARCHITECTURE, TimmViT, to_timm
from umd_bench.engine.training.snapshot import load_snapshot, restore_model
from umd_bench.orchestration.runs.find_run import find_run
from umd_bench.store import RunDir
from umd_bench.store.files import require_writable, write_atomic, write_json


def export_run(root: Path, key: str, to: str, out: Path, *, ema: bool, data_root: Path | None = None) -> list[str]:
    """Write the last weights of the run that ``key`` names (:func:`find_run`), or with ``ema`` their moving average.

    Returns lines that tell the user how to load them. ``to`` is a name of :data:`FORMATS`. ``out`` appears complete or not at
    all. For timm, a run on a user's own data set needs its pack below ``data_root`` (None: the default folder of
    packs). Raises :class:`UserError`, for example if ``out`` is there already; timm accepts an empty folder.
    """
    if to not in FORMATS:
        raise UserError(f"--to = {to!r} is not accepted: {one_of(FORMATS)}")
    run = find_run(root, key)
    stage = run.config().stage
    assert isinstance(stage, WeightsStage)
    if ema and not stage.keeps_average:
        raise UserError(f"--ema is not accepted: run {run.key} keeps no average of its weights")
    return FORMATS[to](run, stage, out, ema, data_root)


def _export_small_vision(run: RunDir, stage: WeightsStage, out: Path, ema: bool, data_root: Path | None) -> list[str]:
    model = run.config().model
    if model.family != "umd":
        raise UserError(
            f"run {run.key} has the family {model.family}: expected umd, the only family that the layout small-vision can hold"
        )
    if out.suffix != ".npz":
        raise UserError(f"--out = {str(out)!r} is not accepted: expected a file that ends in .npz")
    if out.exists():
        raise UserError(f"--out = {str(out)!r} is not accepted: it exists; give another name, or remove it")
    require_writable(out.parent, "the folder of --out")
    buffer = io.BytesIO()
    np.savez(buffer, **to_official(load_snapshot(run, stage.nimg, ema=ema), model.heads))  # type: ignore[arg-type]
    write_atomic(out, buffer.getvalue())
    return [f"wrote {out}: the parameters under their official names; those of all blocks are stacked on axis 0"]


def _export_timm(run: RunDir, stage: WeightsStage, out: Path, ema: bool, data_root: Path | None) -> list[str]:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out = {str(out)!r} is not accepted: expected a folder that is new or empty")
    spec = run.config()
    data = data_facts(spec.data, root=data_root)
    if not stage.sees_clean and spec.model.family == "umd":
        raise UserError(
            f"run {run.key} saw no clean image, so its representation at t = 0, the only one timm's ViT gives, is untrained"
        )
    model = restore_model(run, stage.nimg, source=data, ema=ema)
    vit = to_timm(model, spec.model, size=data.size, channels=data.channels)
    require_writable(out.parent, "the folder of --out")
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        write_atomic(folder / "model.safetensors", safetensors.torch.save(vit.state, {"format": "pt"}))
        write_json(folder / "config.json", _timm_config(vit, data))
        write_json(
            folder / "provenance.json",
            _provenance(run, spec, stage, ema) | {"representation": f"{model.position}: {vit.representation}"},
        )
        folder.chmod(0o777 & ~_umask())
        folder.replace(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return [
        f"wrote {out}",
        f'model = timm.create_model("local-dir:{out}", pretrained=True).eval()',
        f"representation = {vit.representation}  # x: [B, {data.channels}, {data.size}, {data.size}] in [-1, 1]",
    ]


def _timm_config(vit: TimmViT, data: DataFacts) -> dict[str, Any]:
    """The config.json that timm reads (its ``_hub.load_model_config_from_path``)."""
    half = [0.5] * data.channels
    return {
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": vit.args["embed_dim"],
        "global_pool": vit.args["global_pool"],
        "model_args": vit.args,
        "pretrained_cfg": {
            "input_size": [data.channels, data.size, data.size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": half,  # images in [-1, 1]
            "std": half,
            "num_classes": 0,
            "pool_size": None,
            # timm adapts the first convolution if the channels are not three; these weights already fit, so it must not.
            "first_conv": "patch_embed.proj" if data.channels == 3 else None,
            "classifier": "head",
            "custom_load": False,
        },
    }


def _provenance(run: RunDir, spec: StageSpec, stage: WeightsStage, ema: bool) -> dict[str, Any]:
    result = run.result()
    assert result is not None  # find_run returns finished runs only
    imported = {"layout": stage.layout, "sha256": stage.sha256} if isinstance(stage, ImportStage) else None
    return {
        "run": run.key,
        "kind": spec.kind,
        "imported": imported,
        "nimg": stage.nimg,
        "ema": ema,
        "seed": spec.seed,
        "model": spec.model.model_dump(mode="json"),
        "data": result["data"],
        "input": "float32 [B, C, H, W] in [-1, 1], at t = 0, no mask, no label",
        "made_with": {name: result["environment"].get(name) for name in ("umd_bench", "torch", "commit")},
        "exported_with": {"umd_bench": umd_bench.__version__, "torch": torch.__version__, "timm": version("timm")},
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


FORMATS: dict[str, Callable[[RunDir, WeightsStage, Path, bool, Path | None], list[str]]] = {
    "timm": _export_timm,
    "small-vision": _export_small_vision,
}
