"""Sample grids: which samples a grid shows, and where in the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from umd_bench.evaluation.samples.grids import SampleGrid, draw_grid, grid_rows


def test_grid_shows_ten_of_each_of_the_first_ten_classes() -> None:
    rows = grid_rows(1000, torch.arange(1000) % 25, 25)
    assert [len(row) for row in rows] == [10] * 10
    assert rows[4] == [4 + 25 * i for i in range(10)]
    assert grid_rows(103, None, 0)[-1] == list(range(90, 100))
    assert grid_rows(13, None, 0) == [list(range(10)), [10, 11, 12]]


def test_grid_of_colour_images_keeps_colours_and_order(tmp_path: Path) -> None:
    def plain(colour: list[int]) -> torch.Tensor:
        return torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, 64, 64)

    path = tmp_path / "grid.png"
    path.write_bytes(draw_grid([[plain([255, 0, 0]), plain([0, 255, 0])], [plain([0, 0, 255])]]))
    picture = np.asarray(Image.open(path))
    assert picture.shape == (130, 130, 3)
    assert [picture[y, x].tolist() for y, x in ((0, 0), (0, 129), (129, 0), (129, 129))] == [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 255],
    ]


def test_a_grid_collects_its_images_from_batches() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 64, 64)
    grid = SampleGrid([[4, 0], [], [3]])
    for start in range(0, 6, 2):
        grid.add(range(start, start + 2), images[start : start + 2])
    assert grid.png() == draw_grid([[images[4], images[0]], [images[3]]])
