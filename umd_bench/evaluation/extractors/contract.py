"""The contract of an extractor: facts that need no loading, and a loaded network that turns images into features.

Every score names its extractor and the SHA-256 of its weights, so that no table compares distances of two extractors.
This module imports torch only where a network runs, so that checking a plan does not wait for torch.

Shapes: B images, C channels, H, W, D features, K classes, S spatial features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from umd_bench.config.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INCEPTION = "inception-v3-compat"  # FID is defined by its features

Shape = tuple[int, int | None, int | None]  # (C, H, W); None: any
RGB: Shape = (3, None, None)

_CHUNK = 64  # images in one pass of a large network, which bounds memory


@dataclass(frozen=True, kw_only=True)
class ExtractorFacts:
    """The facts of an extractor that need no loading.

    ``data`` is the data set that the classifier was trained on, None if the extractor takes any RGB images. ``shape`` is the
    shape of the images that it takes.
    ``dim`` is D, None for a timm model that is not loaded; ``spatial_dim`` is S, None if it has no spatial features.
    ``resize`` says how an image is resized before the network sees it; ``licence`` is the licence of the weights.
    """

    name: str
    data: str | None
    shape: Shape
    dim: int | None
    resize: str
    licence: str
    spatial_dim: int | None = None
    has_logits: bool = False

    def takes(self, channels: int) -> bool:
        """Whether it takes images of ``channels`` channels. An extractor of any RGB images takes grey ones too."""
        return channels == self.shape[0] or self.repeats(channels)

    def repeats(self, channels: int) -> bool:
        """Whether it turns images of ``channels`` channels into RGB, by repeating their one channel."""
        return self.data is None and self.shape == RGB and channels == 1


@dataclass(frozen=True)
class Features:
    """Features of B images, float32 on the CPU.

    ``pooled`` [B, D]; ``logits`` [B, K], None if the extractor gives no class scores; ``spatial`` [B, S], None unless the
    caller wanted them.
    """

    pooled: Tensor
    logits: Tensor | None
    spatial: Tensor | None


# (uint8 images [B, C, H, W], whether spatial features are wanted) -> features on any device
Network = Callable[["Tensor", bool], Features]


@dataclass(frozen=True, kw_only=True)
class Extractor(ExtractorFacts):
    """A loaded extractor.

    ``hash`` is the SHA-256 of its weights, in hex. ``accuracy`` is the share of its data set's test images that it classifies
    correctly, None if it is no classifier of one data set.
    """

    dim: int
    hash: str
    device: torch.device
    network: Network
    accuracy: float | None = None

    def metric_name(self, score: str) -> str:
        """The column of a score: ``<score>_<extractor>``.

        For Inception, which defines FID, it is ``fid`` for "fd", ``fid_inf`` for "fd_inf", and otherwise ``score`` itself.
        Characters that a column may not hold (the colon and dots of ``timm:NAME``) become ``_``.
        """
        if self.name == INCEPTION:
            return {"fd": "fid", "fd_inf": "fid_inf"}.get(score, score)
        return f"{score}_{re.sub(r'[^a-z0-9_-]', '_', self.name)}"

    def features(self, images: Tensor, *, spatial: bool = False) -> Features:
        """The features of uint8 ``images`` [B, C, H, W], in 0..255; C is 1 or 3 if it takes any RGB images.

        Raises :class:`UserError` for another dtype or shape, for ``spatial`` if the extractor has no spatial features, and for
        features that are NaN or infinite.
        """
        import torch

        if images.ndim == 4 and self.repeats(images.shape[1]):
            images = images.expand(-1, 3, -1, -1)
        self._check(images, spatial)
        with torch.inference_mode(), _full_precision():
            out = self.network(images.to(self.device), spatial)
            pooled = out.pooled.float().cpu()
            logits = out.logits.float().cpu() if out.logits is not None and self.has_logits else None
            by_position = out.spatial.float().cpu() if out.spatial is not None else None
            finite = torch.stack([x.isfinite().all(1) for x in (pooled, logits, by_position) if x is not None]).all(0)
        if not finite.all():
            bad = int((~finite).sum())
            raise UserError(f"{self.name} gives NaN or infinite features for {bad} of {len(images)} images")
        return Features(pooled, logits, by_position)

    def _check(self, images: Tensor, spatial: bool) -> None:
        import torch

        sides = zip(images.shape[1:], self.shape, strict=False)
        if images.dtype != torch.uint8 or images.ndim != 4 or any(expected not in (None, side) for side, expected in sides):
            dtype = str(images.dtype).removeprefix("torch.")
            shape = ", ".join(name if side is None else str(side) for name, side in zip("CHW", self.shape, strict=True))
            raise UserError(
                f"{self.name} does not take {dtype} images of shape {list(images.shape)}: expected uint8 of shape [B, {shape}]"
            )
        if spatial and self.spatial_dim is None:
            raise UserError(f"{self.name} has no spatial features: only {INCEPTION} has them")


def in_chunks(network: Network) -> Network:
    """``network`` applied to at most 64 images at once, so that its memory does not depend on the caller's batch size."""
    import torch

    def chunked(images: Tensor, spatial: bool) -> Features:
        parts = [network(images[start : start + _CHUNK], spatial) for start in range(0, len(images), _CHUNK)]
        pooled = torch.cat([part.pooled for part in parts])
        logits = [part.logits for part in parts if part.logits is not None]
        by_position = [part.spatial for part in parts if part.spatial is not None]
        return Features(pooled, torch.cat(logits) if logits else None, torch.cat(by_position) if by_position else None)

    return chunked


@contextmanager
def _full_precision() -> Iterator[None]:
    """Multiply in full float32 and always with the same algorithm, on a GPU too.

    TensorFloat-32, which cuDNN uses by default, keeps only ten bits of each factor. With it, samples scored on one machine
    could not be compared with a reference made on another.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
