"""Sample grids: which samples a picture shows, and the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

SIDE = 10  # images per row, and the largest number of rows
_IMAGE_PIXELS = 48  # an image is enlarged to at least this side
_GAP_PIXELS = 2


def grid_rows(n: int, label: Tensor | None, classes: int) -> list[list[int]]:
    """The samples to show, as numbers 0..n-1: a row for each of the first ten classes; without classes the first hundred.

    ``label`` [n] int64 are the samples' classes, None for a model without classes.
    """
    if label is None:
        return [list(range(start, min(start + SIDE, n))) for start in range(0, min(n, SIDE * SIDE), SIDE)]
    return [(label == k).nonzero().flatten()[:SIDE].tolist() for k in range(min(classes, SIDE))]


class SampleGrid:
    """Collects the images of a grid from the batches of a set; ``rows`` are numbers of samples, as :func:`grid_rows` gives."""

    def __init__(self, rows: list[list[int]]) -> None:
        self._rows = [row for row in rows if row]
        self._shown = {index for row in rows for index in row}
        self._images: dict[int, Tensor] = {}

    def add(self, indices: Sequence[int], images: Tensor) -> None:
        """Add the uint8 ``images`` [B, C, H, W] of the samples ``indices`` [B]; the images that the grid shows are kept."""
        self._images |= {i: image.clone() for i, image in zip(indices, images, strict=True) if i in self._shown}

    def png(self) -> bytes:
        """The picture, as :func:`draw_grid`."""
        return draw_grid([[self._images[i] for i in row] for row in self._rows])


def draw_grid(rows: list[list[Tensor]]) -> bytes:
    """A PNG of uint8 images [C, H, W] (C = 1 or 3) in rows, each pixel enlarged to a square; a short row ends in white."""
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
