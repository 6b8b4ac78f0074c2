"""``umd-bench import``: a published checkpoint as a trial of one import stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umd_bench.config.documents.document import Document, parse_set
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial
from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.stage_spec import stage_specs
from umd_bench.config.trial.trial import TrialConfig
from umd_bench.data.datasets import DATASETS, VAES, dataset_info
from umd_bench.engine.published.files import read_weight_file
from umd_bench.engine.published.layouts import describe_images, layout
from umd_bench.engine.published.shapes import Weights


def import_trial(
    file: Path,
    layout_name: str,
    *,
    nimg: int,
    sees_clean: bool | None = None,
    data: str | None = None,
    heads: int | None = None,
    pool: str = "class",
    sets: Sequence[str] = (),
) -> tuple[Trial, tuple[str, ...]]:
    """The trial whose only stage imports ``file``, and the layout's notes for the user. Writes nothing.

    ``nimg`` (images the weights have seen) and ``sees_clean`` (whether clean images were among them) come from the publisher;
    ``sees_clean`` is needed only if the layout leaves it open. ``data`` is needed only if several data sets fit. ``sets``
    change fields of the trial (``noise.schedule=linear``, ``resources.threads=8``). Raises :class:`UserError`.
    """
    chosen = layout(layout_name, "--from")
    checkpoint = read_weight_file(file)
    try:
        weights = chosen.read(checkpoint.tensors, heads=heads)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if sees_clean is None:
        sees_clean = chosen.sees_clean
    if sees_clean is None:
        raise UserError(
            f"the layout {layout_name} does not say whether its weights saw clean images: give --clean or --no-clean"
        )
    stage: dict[str, Any] = {
        "kind": "import",
        "layout": layout_name,
        "file": str(file),
        "sha256": checkpoint.sha256,
        "nimg": nimg,
        "classes": weights.classes,
        "sees_clean": sees_clean,
        "pool": pool,
    }
    document = Document(
        {
            "method": "published",
            "model": weights.model.model_dump(mode="json"),
            "data": _fitting_data(weights, data).model_dump(mode="json"),
            "noise": chosen.noise.model_dump(mode="json"),
            "stages": {"import": stage},
        }
    )
    for option in sets:
        document = document.patched(*parse_set(option))
    config = validate(TrialConfig, document)
    return Trial(config, {}, stage_specs(config), document), weights.notes


def next_steps(trial: Trial, key: str) -> list[str]:
    """Commands that take the imported run."""
    model = trial.config.model
    commands = [f"umd-bench evaluate {key}"]
    if model.can_sample:
        commands.append(f"umd-bench sample {key}")
    if (model.adaln and model.family == "umd") or model.family == "mae":
        commands.append(f"umd-bench export {key} --to timm --out DIR")
    if model.family == "umd":
        commands.append(f"umd-bench export {key} --to small-vision --out FILE.npz")
    return commands


def _fitting_data(weights: Weights, wanted: str | None) -> DataConfig:
    """The data set whose images the weights take: ``wanted`` if it fits, else the only one that fits.

    A data set with images of exactly that size is preferred to data sets that can be packed at any size.
    """
    fitting = {name: config for name in DATASETS if (config := _fit(weights, name)) is not None}
    takes = f"the weights take {describe_images(weights)}; data sets that fit: {', '.join(fitting) or 'none'}"
    if wanted is not None:
        dataset_info(wanted)
        if wanted not in fitting:
            raise UserError(f"--data = {wanted!r} is not accepted: {takes}")
        return fitting[wanted]
    own = [name for name in fitting if DATASETS[name].size is not None]
    names = own if len(own) == 1 else list(fitting)
    if len(names) != 1:
        raise UserError(f"{takes}" + ("; give --data" if fitting else ""))
    return fitting[names[0]]


def _fit(weights: Weights, name: str) -> DataConfig | None:
    """The data set at the size, and with the VAE, that the weights take; None if its images or classes do not fit."""
    data = DATASETS[name]
    if weights.classes not in (0, data.classes):
        return None
    shape = weights.size, weights.channels
    if (data.size or weights.size, data.channels) == shape:
        return DataConfig(name=name, size=None if data.size else weights.size)
    if data.size is None:
        for vae, facts in VAES.items():
            if facts.channels == weights.channels:
                return DataConfig(name=name, size=weights.size * facts.factor, vae=vae)
    return None
