"""A random VAE of a few thousand parameters in a folder, as diffusers writes it, and a small RGB data set to encode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from umd_bench.data.datasets import DatasetInfo, Splits
from umd_bench.data.open_data import open_pack
from umd_bench.data.packing.latents import LatentRequest, pack_latents
from umd_bench.data.packs.pack import Pack

SIZE, FACTOR, CHANNELS = 16, 2, 4
SHIFT, SCALE = 0.1, 0.7
N_TRAIN, N_TEST, N_VALIDATION = 24, 10, 6


def write_vae(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """A folder with a random AutoencoderKL of factor 2 and 4 latent channels."""
    from diffusers import AutoencoderKL

    fields: dict[str, Any] = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 2,
        "latent_channels": CHANNELS,
        "layers_per_block": 1,
        "scaling_factor": SCALE,
        "shift_factor": SHIFT,
        "sample_size": SIZE,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoencoderKL(**{**fields, **config}).save_pretrained(str(folder))
    return folder


def read_tinies(folder: Path | None) -> Splits:
    """Two classes: red at the top, or blue at the bottom; the left half is darker, so that mirror images differ."""
    rng = np.random.default_rng(0)
    splits: Splits = {}
    for split, n in (("train", N_TRAIN), ("test", N_TEST), ("validation", N_VALIDATION)):
        images = rng.integers(0, 60, (n, 3, SIZE, SIZE), dtype=np.uint8)
        labels = np.arange(n, dtype=np.int64) % 2
        images[labels == 0, 0, : SIZE // 2] += 150
        images[labels == 1, 2, SIZE // 2 :] += 150
        images[..., : SIZE // 2] //= 2
        splits[split] = images, labels
    return splits


def pack_small(root: Path, vae: Path | str, *, name: str = "tinies", size: int | None = SIZE, **fields: Any) -> Pack:
    """Pack the latents of a built-in data set on the CPU.

    ``fields`` are further arguments of :meth:`LatentRequest.checked`, and ``progress`` of :func:`pack_latents`.
    """
    progress = fields.pop("progress", lambda _: None)
    request = LatentRequest.checked(name, root, str(vae), size=size, **{"device": "cpu", **fields})
    return pack_latents(request, open_pack(name, root, size=size), progress=progress)


TINIES = DatasetInfo("tinies", 1, None, 3, ("red", "blue"), "none", read_tinies)
