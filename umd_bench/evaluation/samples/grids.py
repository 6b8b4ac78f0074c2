"""Sample grids: which samples are shown, and the picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor

SIDE = 10  # images a row, and most rows
_IMAGE_PIXELS = 48  # an image is enlarged to at least this side
_GAP_PIXELS = 2


def grid_rows(n: int, label: Tensor | None, classes: int) -> list[list[int]]:
    """Indices of the samples to show, of 0..n-1: a row for each of the first ten classes, or the first hundred in rows of ten.

    ``label`` [n] int64, None for a model without classes.
    """
    if label is None:
        return [list(range(start, min(start + SIDE, n))) for start in range(0, min(n, SIDE * SIDE), SIDE)]
    return [(label == k).nonzero().flatten()[:SIDE].tolist() for k in range(min(classes, SIDE))]


def draw_grid(rows: list[list[Tensor]]) -> bytes:
    """A PNG with uint8 images [C, H, W] (C = 1 or 3) in rows, each pixel enlarged to a square; a short row ends in white."""
    C, H, W = rows[0][0].shape
    scale = max(1, -(-_IMAGE_PIXELS // W))
    height, width = H * scale + _GAP_PIXELS, W * scale + _GAP_PIXELS
    canvas = np.full((len(rows) * height - _GAP_PIXELS, max(map(len, rows)) * width - _GAP_PIXELS, C), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            enlarged = image.permute(1, 2, 0).numpy().repeat(scale, axis=0).repeat(scale, axis=1)
            canvas[i * height : i * height + H * scale, j * width : j * width + W * scale] = enlarged
    file = io.BytesIO()
    Image.fromarray(canvas.squeeze(2) if C == 1 else canvas).save(file, format="PNG")
    return file.getvalue()
