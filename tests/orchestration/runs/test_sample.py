"""`umd-bench sample` draws one set of samples and writes it as a picture and as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.small_parents import digits, parent_run
from PIL import Image

from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.data.packs.manifest import data_root
from umd_bench.evaluation.samples.sample_files import open_samples
from umd_bench.orchestration.runs.sample import draw_samples
from umd_bench.store import RunDir
from umd_bench.store.files import write_json


def finished(root: Path, *, spoil: bool = False) -> RunDir:
    """A finished run of untrained weights; with ``spoil`` the raw weights are NaN."""
    parent = parent_run(root, spoil=spoil)
    write_json(parent.path / "result.json", {"metrics": {}})
    return parent


def test_the_picture_and_the_file_show_the_same_samples(tmp_path: Path) -> None:
    run = finished(tmp_path)
    settings = GenerateStage(parent="run", n=30, steps=2, extractor="none", batch=8)
    grid, npz = tmp_path / "a.png", tmp_path / "a.npz"
    draw_samples(run.root, run.key, grid, settings, 0, data_root=data_root(), npz=npz)
    file = open_samples(npz)
    images = torch.cat([batch for _, batch in file.batches(1)])
    assert images.shape == (30, 1, digits().manifest.size, digits().manifest.size)
    shown = np.asarray(Image.open(grid))  # one row per class: sample 13 is the second of class 3
    assert np.array_equal(shown[3 * 50 : 3 * 50 + 48 : 6, 50:98:6], images[13, 0])
    draw_samples(run.root, run.key, None, settings, 0, data_root=data_root(), npz=tmp_path / "b.npz")
    assert (tmp_path / "b.npz").read_bytes() == npz.read_bytes()


def test_nan_samples_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    run = finished(tmp_path, spoil=True)
    settings = GenerateStage(parent="run", n=4, steps=2, extractor="none", ema=False)
    with pytest.raises(UserError, match=r"samples 0\.\.3 are NaN or infinite"):
        draw_samples(run.root, run.key, tmp_path / "a.png", settings, 0, data_root=data_root(), npz=tmp_path / "a.npz")
    assert not list(tmp_path.glob("*a.*"))
