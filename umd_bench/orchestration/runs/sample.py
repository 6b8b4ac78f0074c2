"""``umd-bench sample``: images drawn from one finished run, as a PNG grid or a file that other evaluations read."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch

from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.train_stage import WeightsStage
from umd_bench.data.datasets import data_facts
from umd_bench.data.open_data import open_data
from umd_bench.data.vae import decoder_for, round_to_images
from umd_bench.engine.device import pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.training.snapshot import restore_sampled
from umd_bench.evaluation.samples.drawing import SampleDrawer
from umd_bench.evaluation.samples.grids import SampleGrid, grid_rows
from umd_bench.evaluation.samples.sample_files import SampleWriter
from umd_bench.orchestration.runs.find_run import find_run
from umd_bench.store.files import require_writable, write_atomic


def draw_samples(
    root: Path, key: str, out: Path | None, settings: GenerateStage, seed: int, *, data_root: Path, npz: Path | None = None
) -> None:
    """Draw ``settings.n`` samples of the run's last snapshot; sample i has class i mod K if the run has K classes.

    ``out`` is a PNG grid of the first samples, ``npz`` a file of all samples in ADM's format (sample_files.py); either may be
    None. Latents are not clipped; the VAE of their pack below ``data_root`` decodes them. Images need no pack. Raises
    :class:`UserError` for samples that are NaN or infinite, and, before anything is drawn, if a file cannot be written.
    """
    run = find_run(root, key)
    spec = run.config()
    train = spec.stage
    assert isinstance(train, WeightsStage)
    for path, option in ((out, "--out"), (npz, "--npz")):
        if path is not None:
            require_writable(path.parent, f"the folder of {option}")
    data = data_facts(spec.data, root=data_root)
    device = pick_device(spec.resources.device)
    decode = round_to_images if data.vae is None else decoder_for(open_data(spec.data, data_root), device)
    settings = settings.model_copy(update={"clip": settings.clip and data.vae is None})
    model = restore_sampled(run, train.nimg, source=data, ema=settings.ema and train.keeps_average, device=device)
    drawer = SampleDrawer(model, NoiseProcess(spec.noise, device), settings, decode)
    label = torch.arange(settings.n) % data.classes if train.labels else None
    grid = SampleGrid(grid_rows(settings.n, label, data.classes))
    with nullcontext() if npz is None else SampleWriter(npz, settings.n, label) as writer:
        for indices, images in drawer.batches(label, seed):
            grid.add(indices, images)
            if writer is not None:
                writer.add(images)
    if out is not None:
        write_atomic(out, grid.png())
