"""The pooled features of a timm model, with weights from a local file that must hold every parameter.

Images are resized as in EDM2's evaluation (Karras et al., arXiv 2312.02696): the whole image to the model's square, as floats,
bicubic with antialiasing, without rounding or clipping. They are then normalised with the mean and deviation that timm states.

Shapes: B images, H, W, D features.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import Extractor, Features, in_chunks
from umd_bench.evaluation.extractors.timm_models import TIMM, TimmModel, find_weights, hash_weights


class TimmFeatures:
    """uint8 RGB [B, 3, H, W] of any side -> pooled features [B, D]; with DINOv2 the class token after the last norm."""

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
    """uint8 [B, C, H, W] -> float32 [B, C, side, side], in 0..255 plus the overshoot of bicubic weights."""
    return F.interpolate(images.to(torch.float32), size=(side, side), mode="bicubic", antialias=True)


def load_timm(model: TimmModel, device: torch.device) -> Extractor:
    """The model with its weights on ``device``.

    Raises :class:`UserError` if the weights are missing, unreadable, or do not fit every parameter.
    """
    digest = hash_weights(model)
    network = TimmFeatures(build_network(model, find_weights(model)).to(device), model)
    with torch.inference_mode():
        dim = network(torch.zeros(1, 3, model.side, model.side, dtype=torch.uint8, device=device)).shape[1]
    return Extractor(
        **asdict(model.facts) | {"dim": dim},
        hash=digest,
        device=device,
        network=in_chunks(lambda images, _: Features(network(images), None, None)),
    )


def build_network(model: TimmModel, path: Path) -> Any:
    """timm's network without its classifier, in eval mode, with every parameter from ``path``.

    Raises :class:`UserError` if the file lacks a parameter, or holds one that neither the network nor its classifier has. This
    does not use timm's own loading, which leaves missing parameters random if the classifier is left out.
    """
    import timm

    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
        network = timm.create_model(model.name, **model.create_options)
    state = _read(path)
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    expected = network.state_dict()
    try:
        if convert is not None:  # for other published layouts, and positional embeddings of another number of patches
            state = convert(state, network)
        used = {name: x for name, x in state.items() if name in expected or name.rpartition(".")[0] not in model.classifier}
        network.load_state_dict(used)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} does not hold the weights of {TIMM}{model.name} ({reason})") from None
    return network.eval().requires_grad_(requires_grad=False)


def _read(path: Path) -> Any:
    """The tensors of a file, by name, without running any code in it."""
    import safetensors
    import safetensors.torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} does not hold tensors that safetensors or torch saved ({error})") from None
