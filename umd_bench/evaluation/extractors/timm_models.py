"""``timm:NAME``: the pooled features of any timm model, DINOv2 for FD-DINOv2 (Stein et al., arXiv 2306.04675) among them.

Weights are read from local files only and fit every parameter, or nothing is loaded: a network with random weights would give
distances like any other. Images are resized as EDM2's evaluation does it (Karras et al., arXiv 2312.02696): as floats, bicubic
with antialiasing, the whole image to the model's square, not rounded and not clipped, then normalised as the weights ask for.
Shapes: B batch, H, W, D features.
"""

from __future__ import annotations

import difflib
import os
import pickle
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from umd_bench.config.errors import FieldError, UserError
from umd_bench.evaluation.extractors.registry import TIMM
from umd_bench.evaluation.extractors.weight_files import file_sha256, weights_folder

DINOV2 = "timm:vit_large_patch14_dinov2.lvd142m"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# FD-DINOv2 is defined at 224 pixels, though the published weights were last trained at 518: the positions are resampled.
_DINOV2_SIDE = 224


@dataclass(frozen=True)
class TimmModel:
    """What timm says of a model without its weights. ``side`` in pixels; ``mean`` and ``std`` of images in [0, 1]."""

    name: str  # without the prefix
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    hub: str | None  # its repository on the Hugging Face hub
    classifier: tuple[str, ...]  # parameters of its read-out, which features do without

    @property
    def resize(self) -> str:
        """What is done to an image before the network sees it."""
        return f"bicubic with antialiasing to {self.side} px"

    @property
    def variable(self) -> str:
        """The environment variable that may name its weights' file."""
        return "UMD_BENCH_TIMM_" + re.sub(r"[^A-Z0-9]+", "_", self.name.upper())

    @property
    def own_path(self) -> Path:
        """Where its weights are looked for in the folder of weights; without the suffix."""
        return weights_folder() / "timm" / self.name

    @property
    def create_options(self) -> dict[str, int]:
        """What ``timm.create_model`` is told besides the name."""
        return {"num_classes": 0} | ({"img_size": self.side} if _is_dinov2(self.name) else {})


def timm_model(name: str, *, path: str) -> TimmModel:
    """The model that ``timm:NAME`` names; an unknown one raises :class:`FieldError` for the field ``path``."""
    import timm
    from timm.models import get_pretrained_cfg

    bare = name.removeprefix(TIMM)
    try:
        found = get_pretrained_cfg(bare) if timm.is_model(bare) else None
    except RuntimeError:  # a tag that the architecture does not have
        found = None
    if found is None or found.input_size[0] != 3:
        names = [TIMM + known for known in timm.list_models() + timm.list_pretrained()]
        close = difflib.get_close_matches(name, names, 3)
        raise FieldError(path, name, "expected timm: and a model that timm has" + (f", as {', '.join(close)}" if close else ""))
    classifier = found.classifier or ()
    return TimmModel(
        bare,
        _DINOV2_SIDE if _is_dinov2(bare) else found.input_size[-1],
        tuple(found.mean),
        tuple(found.std),
        found.license or "not stated",
        found.hf_hub_id or None,
        (classifier,) if isinstance(classifier, str) else tuple(classifier),
    )


def find_weights(model: TimmModel) -> Path | None:
    """The local file of its weights, or None: what its variable names and nothing else, or without it the folder of
    weights, then the local cache of the Hugging Face hub."""
    stated = os.environ.get(model.variable)
    if stated:
        path = Path(stated).expanduser()
        return path if path.exists() else None
    own = (model.own_path.with_name(model.name + suffix) for suffix in _SUFFIXES)
    return next((path for path in own if path.exists()), None) or _in_hub_cache(model)


def own_names() -> list[str]:
    """``timm:NAME`` of every weight file in the folder of weights, in order."""
    files = (weights_folder() / "timm").glob("[!.]*")
    return sorted({TIMM + path.stem for path in files if path.suffix in _SUFFIXES})


def require_weights(model: TimmModel) -> Path:
    """What :func:`find_weights` finds; :class:`UserError` where it finds nothing."""
    path = find_weights(model)
    if path is None:
        raise UserError(f"{TIMM}{model.name} has no weights on this machine: {ways(model)}")
    return path


def ways(model: TimmModel) -> str:
    """The sentence part that says how the weights can be had."""
    hub = f", or have it in the local Hugging Face cache (`hf download {model.hub} model.safetensors`)" if model.hub else ""
    return f"name the file in ${model.variable}, or put it there as {model.own_path}.safetensors (or .pth){hub}"


def feature_width(model: TimmModel) -> int:
    """D, from the model's shape alone: nothing is computed and no weights are needed."""
    import timm

    with torch.device("meta"):
        built = timm.create_model(model.name, **model.create_options)
    return int(getattr(built, "head_hidden_size", built.num_features))


class TimmFeatures:
    """uint8 RGB [B, 3, H, W] of any side -> pooled features [B, D]: with DINOv2 the class token after the last norm."""

    def __init__(self, network: Any, model: TimmModel) -> None:
        self._network = network
        self._side = model.side
        device = next(network.parameters()).device
        self._mean, self._std = (torch.tensor(x, device=device).view(1, -1, 1, 1) for x in (model.mean, model.std))

    def __call__(self, images: Tensor) -> Tensor:
        x = resized(images, self._side) / 255
        pooled: Tensor = self._network((x - self._mean) / self._std)
        return pooled


def resized(images: Tensor, side: int) -> Tensor:
    """uint8 [B, C, H, W] -> float32 [B, C, side, side], in 0..255 but for what bicubic weights overshoot."""
    return F.interpolate(images.to(torch.float32), size=(side, side), mode="bicubic", antialias=True)


def load_timm(model: TimmModel, device: torch.device) -> tuple[TimmFeatures, str, int]:
    """The model with its weights on ``device``, the SHA-256 of their file, and D.

    Raises :class:`UserError` where there are none, and where they do not fit every parameter.
    """
    path = require_weights(model)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise UserError(f"the weights of {TIMM}{model.name} cannot be read from {path} ({error.strerror})") from None
    features = TimmFeatures(build_network(model, path).to(device), model)
    with torch.inference_mode():
        dim = features(torch.zeros(1, 3, model.side, model.side, dtype=torch.uint8, device=device)).shape[1]
    return features, digest, dim


def build_network(model: TimmModel, path: Path) -> Any:
    """timm's network without its classifier, in eval mode, every parameter from ``path``; :class:`UserError` otherwise.

    timm's own loading fills what is missing with random numbers as soon as a classifier is left out, so that it is strict here.
    """
    import timm

    with torch.random.fork_rng(devices=[]):  # the weights it is made with are thrown away
        network = timm.create_model(model.name, **model.create_options)
    state = _read(path)
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    wanted = network.state_dict()
    try:
        if convert is not None:  # published layouts, and positions of another number of patches
            state = convert(state, network)
        kept = {name: x for name, x in state.items() if name in wanted or name.rpartition(".")[0] not in model.classifier}
        network.load_state_dict(kept)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} does not hold the weights of {TIMM}{model.name} ({reason})") from None
    return network.eval().requires_grad_(requires_grad=False)


def _read(path: Path) -> Any:
    """The tensors of a file, by name. No code in it is run."""
    import safetensors
    import safetensors.torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} does not hold tensors that safetensors or torch saved ({error})") from None


def _in_hub_cache(model: TimmModel) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache

    if model.hub is None:
        return None
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(model.hub, file, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(found, str):
            return Path(found)
    return None


def _is_dinov2(name: str) -> bool:
    return "dinov2" in name
