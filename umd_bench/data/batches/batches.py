"""Batches of a split, as a pure function of (seed, purpose, images seen so far).

Every epoch visits each image once, and has an order of its own. A batch may end one epoch and begin the next. It does not
depend on earlier batches, so a resumed run, or another arm of a sweep with the same seed, gets the same batch. Rows lie on the
device or in the memory map (device_rows.py); crop, flip and scaling are computed on the device, for a whole batch at once.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.train_stage import AugmentConfig
from umd_bench.data.batches.augment import draw_crops, draw_flips, resized_crop
from umd_bench.data.batches.device_rows import MappedRows, ResidentRows, fits_on, to_device
from umd_bench.data.batches.posteriors import posterior_mean, posterior_sample
from umd_bench.data.packs.manifest import VaeFacts
from umd_bench.data.packs.pack import Split


def to_unit(images: Tensor) -> Tensor:
    """``x/127.5 - 1``: uint8 of any shape, 0..255, to float32 in [-1, 1]."""
    return images.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """The inverse of :func:`to_unit`: clip floats to [-1, 1] and round to the nearest level 0..255, as uint8."""
    return x.to(torch.float32).add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def unaugmented(split: Split, rows: slice | NDArray[np.int64]) -> Tensor:
    """The rows as evaluations use them: x_0 float32 [B, C, H, W] on the CPU, for B ``rows`` (a slice or indices).

    Images lie in [-1, 1]; latents are the scaled mean of their posterior.
    """
    stored = torch.from_numpy(split.images[rows])
    return to_unit(stored) if split.vae is None else posterior_mean(stored, split.vae)


class Batches:
    """The batches of one split for one purpose ("pretrain", "finetune", ...).

    ``resident`` says whether the rows are copied to the device; None copies them if they fit. ``share_rows_with`` are batches
    of the same split on the same device: if they have copied the rows there, these batches use that copy. In each batch,
    latents are sampled anew from their posteriors; the sample, too, depends on (seed, purpose, nimg) alone. Where an image
    would be flipped, the posterior of its mirror image is used. Raises :class:`UserError` for a split without images,
    :class:`FieldError` for crops of latents.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch: int,
        seed: int,
        purpose: str,
        augment: AugmentConfig,
        device: torch.device,
        resident: bool | None = None,
        share_rows_with: Batches | None = None,
    ) -> None:
        if not len(split):
            raise UserError("the split holds no images: expected at least one to train on")
        if split.vae is not None:
            augment.require_no_crop("augment")
        if resident is None:
            resident = fits_on(split.images.nbytes, device)
        if share_rows_with is not None and isinstance(share_rows_with._rows, ResidentRows):
            self._rows: ResidentRows | MappedRows = share_rows_with._rows
        else:
            self._rows = ResidentRows(split.images, device) if resident else MappedRows(split.images, device)
        self._batch, self._seed, self._purpose, self._augment, self._device = batch, seed, purpose, augment, device
        self._labels = torch.tensor(split.labels, device=device)
        self._vae = split.vae
        self._orders: dict[int, Tensor] = {}

    def at(self, nimg: int) -> tuple[Tensor, Tensor]:
        """The batch after ``nimg`` >= 0 images: x_0 float32 [B, C, H, W] and labels int64 [B], on the device.

        Images lie in [-1, 1]; latents are scaled and unbounded.
        """
        index = self._index(nimg)
        rows = self._rows.take(index)
        if isinstance(self._rows, MappedRows) and self._rows.ahead:
            self._rows.expect(self._index(nimg + self._batch))
        x_0 = self._augmented(to_unit(rows), nimg) if self._vae is None else self._sampled(rows, self._vae, nimg)
        here = index if index.is_cuda else to_device(index, self._device)
        return x_0, self._labels.index_select(0, here)

    def _augmented(self, x_0: Tensor, nimg: int) -> Tensor:
        """x_0 cropped and flipped; x_0 itself if neither is configured."""
        config = self._augment
        if config.crop_area_min == 1 and not config.flip:
            return x_0
        B, _, size, _ = x_0.shape
        rng = np.random.default_rng(derive_seed(self._seed, self._purpose + "/augment", nimg))
        # Both are always drawn, crops first, so that arms with and without flips have the same crops.
        crops, flips = draw_crops(rng, B, size, config.crop_area_min), draw_flips(rng, B)
        if config.crop_area_min < 1:
            x_0 = resized_crop(x_0, crops)
        if config.flip:
            flipped = to_device(flips, self._device).view(B, 1, 1, 1)
            x_0 = torch.where(flipped, x_0.flip(-1), x_0)
        return x_0

    def _sampled(self, moments: Tensor, vae: VaeFacts, nimg: int) -> Tensor:
        """A sample from the posterior of each image, or of its mirror image if the image would be flipped."""
        B, h = len(moments), moments.shape[-1]
        view = torch.zeros(B, dtype=torch.bool, device=self._device)
        if self._augment.flip:
            rng = np.random.default_rng(derive_seed(self._seed, self._purpose + "/augment", nimg))
            draw_crops(rng, B, h, 1)  # not used; drawn first so that latents get the same flips as images
            view = to_device(draw_flips(rng, B), self._device)
        generator = torch.Generator(self._device).manual_seed(derive_seed(self._seed, self._purpose + "/posterior", nimg))
        eps = torch.randn((B, *moments.shape[3:]), generator=generator, device=self._device)
        return posterior_sample(moments, view, eps, vae)

    def _index(self, nimg: int) -> Tensor:
        """Indices of the batch's images: int64 [B], on the device that the rows are indexed on."""
        epoch, start = divmod(nimg, len(self._labels))
        parts, missing = [], self._batch
        while missing:
            part = self._epoch_order(epoch)[start : start + missing]
            parts.append(part)
            missing -= len(part)
            epoch, start = epoch + 1, 0
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _epoch_order(self, epoch: int) -> Tensor:
        """The epoch's order of images. Two orders are cached: many batches use one, and a batch between epochs uses two."""
        if epoch not in self._orders:
            while len(self._orders) > 1:
                del self._orders[next(iter(self._orders))]
            rng = np.random.default_rng(derive_seed(self._seed, self._purpose + "/order", epoch))
            self._orders[epoch] = to_device(rng.permutation(len(self._labels)), self._rows.index_device)
        return self._orders[epoch]
