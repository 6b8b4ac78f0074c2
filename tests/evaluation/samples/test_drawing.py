"""A sample depends on its index in the set and on the seed, not on the batch that it is drawn in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation.small_parents import NIMG, SHARED, parent_run

from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.data.datasets import dataset_info
from umd_bench.data.vae import round_to_images
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.training.snapshot import restore_sampled
from umd_bench.evaluation.samples.drawing import SampleDrawer

LABEL = torch.arange(10) % 3


def drawer(root: Path, *, batch: int = 4, fixed_batch: int = 0, spoil: bool = False) -> SampleDrawer:
    model = restore_sampled(parent_run(root, spoil=spoil), NIMG, source=dataset_info("digits"))
    stage = GenerateStage(parent="p", n=10, steps=2, extractor="none", batch=batch)
    return SampleDrawer(model, NoiseProcess(SHARED["noise"]), stage, round_to_images, fixed_batch)


def difference(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("fixed_batch", [0, 4])
def test_samples_drawn_in_batches_equal_samples_drawn_at_once_with_or_without_padding(tmp_path: Path, fixed_batch: int) -> None:
    batched = drawer(tmp_path, fixed_batch=fixed_batch)
    parts = list(batched.batches(LABEL, seed=1))
    assert [indices for indices, _ in parts] == [range(4), range(4, 8), range(8, 10)]
    images = torch.cat([images for _, images in parts])
    assert (images.shape, images.dtype) == ((10, 1, 8, 8), torch.uint8)
    assert difference(images, batched.draw(range(10), LABEL, seed=1)) <= 1
    assert difference(images[[7, 2]], batched.draw([7, 2], LABEL, seed=1)) <= 1
    assert difference(images, batched.draw(range(10), LABEL, seed=2)) > 1
    assert batched.seconds > 0


def test_the_error_for_nan_samples_names_their_indices(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"samples 4\.\.7 are NaN or infinite"):
        drawer(tmp_path, spoil=True).draw(range(4, 8), LABEL, seed=0)
