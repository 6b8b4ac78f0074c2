"""Feature extractors: how each turns images into features and class scores.

Shapes: B batch, C channels, H, W, D features, K classes, S spatial features. A new extractor is a row of
:data:`LOADERS`, and one of the facts in :mod:`~umd_bench.evaluation.extractors.registry`.
``timm:NAME`` is any timm model. Distances of two extractors are never compared: every score carries its extractor's name and
the hash of its weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from umd_bench.config.errors import FieldError, UserError
from umd_bench.data.batches.batches import to_unit
from umd_bench.evaluation.extractors import efficientnet, inception, timm_models
from umd_bench.evaluation.extractors.classifier import build_classifier, read_weights
from umd_bench.evaluation.extractors.classifier_recipes import RECIPES
from umd_bench.evaluation.extractors.registry import EXTRACTORS, INCEPTION, TIMM, Shape, names_of

FIELD = "stages.generate.extractor"
_CHUNK = 64  # images at once in a network of many channels: what bounds memory, however many are asked for at once


@dataclass(frozen=True)
class Features:
    """What an extractor reads of B images, all float32 on the CPU.

    ``pooled`` [B, D]; ``logits`` [B, K], None where the network has no classes whose scores are meant to be read;
    ``spatial`` [B, S], only where asked for and the network has them.
    """

    pooled: Tensor
    logits: Tensor | None
    spatial: Tensor | None


# uint8 [B, C, H, W], whether spatial features are asked for -> the features, on any device
Network = Callable[[Tensor, bool], Features]


@dataclass(frozen=True)
class Extractor:
    """A loaded extractor.

    ``hash`` is the SHA-256 of its weights, in hex; ``resize`` what is done to an image before the network sees it;
    ``shape`` the images it takes; ``dim`` is D and ``spatial_dim`` S, None without spatial features; ``data`` is the set
    whose classes it reads, if any; ``has_logits`` says whether it gives class scores.
    """

    name: str
    hash: str
    resize: str
    shape: Shape
    dim: int
    data: str | None
    spatial_dim: int | None
    has_logits: bool
    device: torch.device
    network: Network

    def metric(self, score: str) -> str:
        """What a score of its features is called: ``fd`` is ``fid`` with the features that FID is defined by, and only then.

        Others carry the extractor's name, with what no column may hold (the colon and dots of ``timm:NAME``) as ``_``.
        """
        if self.name != INCEPTION:
            return f"{score}_{re.sub(r'[^a-z0-9_-]', '_', self.name)}"
        return "fid" if score == "fd" else score

    @torch.inference_mode()
    def features(self, images: Tensor, *, spatial: bool = False) -> Features:
        """The features of uint8 images [B, C, H, W], 0..255.

        Raises :class:`UserError` for another dtype or shape, for spatial features where there are none, and for features
        that are NaN or infinite.
        """
        sides = zip(images.shape[1:], self.shape, strict=False)
        if images.dtype != torch.uint8 or images.ndim != 4 or any(wanted not in (None, side) for side, wanted in sides):
            dtype = str(images.dtype).removeprefix("torch.")
            expected = ", ".join(
                name if wanted is None else str(wanted) for name, wanted in zip("CHW", self.shape, strict=True)
            )
            raise UserError(
                f"{self.name} does not take {dtype} images of shape {list(images.shape)}: "
                f"expected uint8 of shape [B, {expected}]"
            )
        if spatial and self.spatial_dim is None:
            raise UserError(f"{self.name} has no spatial features: only {INCEPTION} has them")
        with _full_precision():
            found = self.network(images.to(self.device), spatial)
        logits = found.logits.float().cpu() if found.logits is not None and self.has_logits else None
        kept = found.spatial.float().cpu() if found.spatial is not None else None
        pooled = found.pooled.float().cpu()
        bad = ~torch.stack([x.isfinite().all(1) for x in (pooled, logits, kept) if x is not None]).all(0)
        if bad.any():
            raise UserError(f"{self.name} gives NaN or infinite features for {int(bad.sum())} of {len(images)} images")
        return Features(pooled, logits, kept)


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 as it is written, and the same algorithm every time, on a GPU too.

    TensorFloat-32, which cuDNN takes by default, keeps ten bits of each factor: one machine's reference would not fit another's
    samples.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _load_classifier(name: str, device: torch.device) -> Extractor:
    state, digest = read_weights(name)
    model = build_classifier(name, state).to(device)

    def network(images: Tensor, spatial: bool) -> Features:
        pooled, logits = model(to_unit(images))
        return Features(pooled, logits, None)

    recipe = RECIPES[name]
    return Extractor(
        name,
        hash=digest,
        resize="none",
        shape=EXTRACTORS[name].shape,
        dim=recipe.dim,
        data=recipe.data,
        spatial_dim=None,
        has_logits=True,
        device=device,
        network=network,
    )


def _load_inception(device: torch.device) -> Extractor:
    model = inception.load_inception(device)
    return Extractor(
        INCEPTION,
        hash=inception.SHA256,
        resize=inception.RESIZE,
        shape=(3, None, None),
        dim=inception.DIM,
        data=None,
        spatial_dim=inception.SPATIAL_DIM,
        has_logits=True,
        device=device,
        network=in_chunks(lambda images, spatial: Features(*model(images, spatial=spatial))),
    )


def _load_efficientnet(device: torch.device) -> Extractor:
    model = efficientnet.load_efficientnet(device)
    return Extractor(
        efficientnet.NAME,
        hash=efficientnet.SHA256,
        resize=efficientnet.RESIZE,
        shape=(3, None, None),
        dim=efficientnet.DIM,
        data=None,
        spatial_dim=None,
        has_logits=False,
        device=device,
        network=in_chunks(lambda images, _: Features(model(images)[0], None, None)),
    )


def _load_timm(name: str, device: torch.device) -> Extractor:
    facts = timm_models.timm_model(name, path=FIELD)
    model, digest, dim = timm_models.load_timm(facts, device)
    return Extractor(
        name,
        hash=digest,
        resize=facts.resize,
        shape=(3, None, None),
        dim=dim,
        data=None,
        spatial_dim=None,
        has_logits=False,
        device=device,
        network=in_chunks(lambda images, _: Features(model(images), None, None)),
    )


def in_chunks(network: Network) -> Network:
    """The network, given at most 64 images at once: what it makes of them is a small part of what it needs for it."""

    def chunked(images: Tensor, spatial: bool) -> Features:
        parts = [network(images[start : start + _CHUNK], spatial) for start in range(0, len(images), _CHUNK)]
        pooled = torch.cat([part.pooled for part in parts])
        logits = [part.logits for part in parts if part.logits is not None]
        places = [part.spatial for part in parts if part.spatial is not None]
        return Features(pooled, torch.cat(logits) if logits else None, torch.cat(places) if places else None)

    return chunked


# A row of known_extractors.py -> how it is loaded.
LOADERS: dict[str, Callable[[torch.device], Extractor]] = {name: partial(_load_classifier, name) for name in RECIPES} | {
    INCEPTION: _load_inception,
    efficientnet.NAME: _load_efficientnet,
}


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """The named extractor on ``device``.

    Raises :class:`FieldError` for an unknown name, :class:`UserError` for weights that are missing or not the published ones.
    """
    if name.startswith(TIMM):
        return _load_timm(name, torch.device(device))
    if name not in LOADERS:
        raise FieldError(FIELD, name, names_of(EXTRACTORS))
    return LOADERS[name](torch.device(device))
