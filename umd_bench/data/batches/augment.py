"""Training augmentation for a whole batch: random resized crop and horizontal flip.

Parameters are drawn on the CPU from a numpy generator, so crops are the same on every device; pixels are computed on the
device. The resize is bilinear without antialiasing, as in the official implementation's training (small-vision, commit
3d4555b).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from umd_bench.data.batches.device_rows import to_device

_ASPECT_MIN, _ASPECT_MAX = 3 / 4, 4 / 3  # width / height
_TRIES = 10


def draw_crops(rng: np.random.Generator, B: int, size: int, area_min: float) -> NDArray[np.int64]:
    """B crop boxes (top, left, height, width) in pixels, int64 [B, 4], inside a square image.

    The box's share of the image's area is uniform in [area_min, 1], its aspect (width / height) log-uniform in [3/4, 4/3]. Of
    ten boxes the first that fits into the image is taken, or the whole image if none fits. Source: Szegedy et al., "Going
    deeper with convolutions", 2015, with the rounding and the ten tries of torchvision's ``RandomResizedCrop``.
    """
    area = size**2 * rng.uniform(area_min, 1, (B, _TRIES))
    aspect = np.exp(rng.uniform(math.log(_ASPECT_MIN), math.log(_ASPECT_MAX), (B, _TRIES)))
    position = rng.random((2, B))
    heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    fits = (heights > 0) & (heights <= size) & (widths > 0) & (widths <= size)
    first = fits.argmax(axis=1)
    rows = np.arange(B)
    height = np.where(fits.any(axis=1), heights[rows, first], size)
    width = np.where(fits.any(axis=1), widths[rows, first], size)
    top = np.floor(position[0] * (size - height + 1)).astype(np.int64)
    left = np.floor(position[1] * (size - width + 1)).astype(np.int64)
    return np.stack([top, left, height, width], axis=1)


def draw_flips(rng: np.random.Generator, B: int) -> NDArray[np.bool_]:
    """Whether each image is mirrored, with probability 1/2: bool [B]."""
    return rng.random(B) < 0.5


def resized_crop(x: Tensor, crops: NDArray[np.int64]) -> Tensor:
    """Crop each image to its own box and resize it back: float [B, C, H, W] and int64 [B, 4] to float [B, C, H, W].

    Equal to bilinear interpolation of each crop alone (``align_corners=False``, no antialiasing): output pixel k is read at
    ``start + (k + 1/2) extent/size - 1/2``, clamped to the crop so that no pixel outside is mixed in.
    """
    B, _, H, W = x.shape
    top, left, height, width = to_device(crops.astype(np.float32), x.device).unbind(1)
    grid_y = _lookup(top, height, H)[:, :, None].expand(B, H, W)
    grid_x = _lookup(left, width, W)[:, None, :].expand(B, H, W)
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _lookup(start: Tensor, extent: Tensor, size: int) -> Tensor:
    """Positions at which one axis is read, in grid_sample's units (-1 and 1 are the image's edges): [B, size]."""
    k = torch.arange(size, device=start.device, dtype=torch.float32)
    pixel = start[:, None] + (k + 0.5) * (extent / size)[:, None] - 0.5
    pixel = torch.minimum(torch.maximum(pixel, start[:, None]), (start + extent - 1)[:, None])
    return (2 * pixel + 1) / size - 1
