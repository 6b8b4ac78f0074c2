"""``timm:NAME``: timm's facts about a model, and the path of its weights on this machine.

One such model is DINOv2, for FD-DINOv2 (Stein et al., arXiv 2306.04675). Weights come from local files only; nothing is
downloaded. The network is in timm_network.py.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from umd_bench.config.errors import FieldError, UserError
from umd_bench.evaluation.extractors.contract import RGB, ExtractorFacts
from umd_bench.evaluation.extractors.weight_files import MissingWeightsError, file_sha256, weights_folder

TIMM = "timm:"
DINOV2 = "timm:vit_large_patch14_dinov2.lvd142m"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# FD-DINOv2 is defined at 224 pixels. The published weights were last trained at 518, so their positional embeddings are
# resampled.
_DINOV2_SIDE = 224


@dataclass(frozen=True)
class TimmModel:
    """timm's facts about a model, without its weights. ``side`` is in pixels; ``mean`` and ``std`` are of images in [0, 1]."""

    name: str  # without the prefix
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    hub: str | None  # its repository on the Hugging Face hub
    classifier: tuple[str, ...]  # the classifier's parameters, which features do not need

    @property
    def facts(self) -> ExtractorFacts:
        """The model as an extractor; D is known only after loading, or by :func:`feature_width`."""
        resize = f"bicubic with antialiasing to {self.side} px"
        return ExtractorFacts(name=TIMM + self.name, data=None, shape=RGB, dim=None, resize=resize, licence=self.licence)

    @property
    def variable(self) -> str:
        """The environment variable that may name its weight file."""
        return "UMD_BENCH_TIMM_" + re.sub(r"[^A-Z0-9]+", "_", self.name.upper())

    @property
    def own_path(self) -> Path:
        """The path of its weights in the folder of weights, without the suffix."""
        return weights_folder() / "timm" / self.name

    @property
    def create_options(self) -> dict[str, int]:
        """Arguments of ``timm.create_model`` besides the name."""
        return {"num_classes": 0} | ({"img_size": self.side} if _is_dinov2(self.name) else {})


def timm_model(name: str, *, path: str) -> TimmModel:
    """The model of ``timm:NAME``. An unknown name raises :class:`FieldError` for the field ``path``."""
    import timm
    from timm.models import get_pretrained_cfg

    bare = name.removeprefix(TIMM)
    try:
        config = get_pretrained_cfg(bare) if timm.is_model(bare) else None
    except RuntimeError:  # a tag that the architecture does not have
        config = None
    if config is None or config.input_size[0] != 3:
        names = [TIMM + known for known in timm.list_models() + timm.list_pretrained()]
        close = difflib.get_close_matches(name, names, 3)
        similar = f", such as {', '.join(close)}" if close else ""
        raise FieldError(path, name, f"expected timm: and a model that timm has{similar}")
    classifier = config.classifier or ()
    return TimmModel(
        bare,
        _DINOV2_SIDE if _is_dinov2(bare) else config.input_size[-1],
        tuple(config.mean),
        tuple(config.std),
        config.license or "not stated",
        config.hf_hub_id or None,
        (classifier,) if isinstance(classifier, str) else tuple(classifier),
    )


def find_weights(model: TimmModel) -> Path:
    """The model's local weight file. Raises :class:`MissingWeightsError` if there is none.

    If the model's environment variable names a file, only that file counts. Otherwise the folder of weights comes first, then
    the local cache of the Hugging Face hub.
    """
    path = _weight_file(model)
    if path is None:
        raise MissingWeightsError(TIMM + model.name, "on this machine", _how_to_get(model))
    return path


def hash_weights(model: TimmModel) -> str:
    """The SHA-256 of the model's weight file, in hex. Raises :class:`UserError` if it is missing or cannot be read."""
    path = find_weights(model)
    try:
        return file_sha256(path)
    except OSError as error:
        raise UserError(f"the weights of {TIMM}{model.name} cannot be read from {path} ({error.strerror})") from None


def names_with_weights() -> list[str]:
    """``timm:NAME`` of every weight file in the folder of weights, sorted."""
    files = (weights_folder() / "timm").glob("[!.]*")
    return sorted({TIMM + path.stem for path in files if path.suffix in _SUFFIXES})


@cache
def feature_width(model: TimmModel) -> int:
    """D, from the model's shape alone: nothing is computed, and no weights are needed."""
    import timm
    import torch

    with torch.device("meta"):
        built = timm.create_model(model.name, **model.create_options)
    return int(getattr(built, "head_hidden_size", built.num_features))


def _weight_file(model: TimmModel) -> Path | None:
    stated = os.environ.get(model.variable)
    if stated:
        path = Path(stated).expanduser()
        return path if path.exists() else None
    own = (model.own_path.with_name(model.name + suffix) for suffix in _SUFFIXES)
    return next((path for path in own if path.exists()), None) or _in_hub_cache(model)


def _in_hub_cache(model: TimmModel) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache

    if model.hub is None:
        return None
    for file in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(model.hub, file, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(path, str):
            return Path(path)
    return None


def _how_to_get(model: TimmModel) -> str:
    hub = f", or have it in the local Hugging Face cache (`hf download {model.hub} model.safetensors`)" if model.hub else ""
    return f"name the file in ${model.variable}, or save it as {model.own_path}.safetensors (or .pth){hub}"


def _is_dinov2(name: str) -> bool:
    return "dinov2" in name
