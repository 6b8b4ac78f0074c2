"""Latents of a packed data set, as a pack: two views of each image, of each the posterior's mean and standard deviation.

The VAE is copied into the pack (its two files, under diffusers' names), so that samples can be decoded wherever the pack is and
whatever happens to the folder that it came from; next to the latents of a real data set its hundreds of megabytes are little.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umd_bench.config.data import DataConfig
from umd_bench.config.documents import Document
from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.validation import validate
from umd_bench.data.manifest import MANIFEST_FILE, Manifest, VaeFacts, read_manifest, remedy
from umd_bench.data.pack import Pack, Split, latents_path, open_data, pack
from umd_bench.data.sources import data_facts
from umd_bench.data.vae import CONFIG_FILE, PRECISIONS, WEIGHTS_FILE, encode, find_vae, load_vae
from umd_bench.data.writing import Progress, Rows, write_pack

DEVICES = ("auto", "cpu", "cuda")
MOMENTS = np.dtype(np.float16)


def pack_latents(
    name: str,
    root: Path,
    where: str,
    *,
    vae_name: str | None = None,
    size: int | None = None,
    folder: Path | None = None,
    precision: str = "fp32",
    device: str = "auto",
    progress: Callable[[Progress], None] = lambda _: None,
) -> Pack:
    """Encode the data set ``name`` at ``size`` pixels with the VAE ``where``, unless its pack is there already.

    Its images are packed first where they are not (from ``folder``). ``precision`` is the encoder's, fp32 or bf16; what is
    stored is float16. Raises :class:`UserError` as :func:`pack` and :func:`find_vae` do, for images that the VAE cannot take,
    for latents of another VAE under the same name, and for a posterior that float16 does not hold.
    """
    if precision not in PRECISIONS:
        raise FieldError("--vae-precision", precision, one_of(PRECISIONS))
    if device not in DEVICES:
        raise FieldError("--device", device, one_of(DEVICES))
    if device == "cuda" and not torch.cuda.is_available():
        raise FieldError("--device", device, "expected auto or cpu, since no CUDA device is to be seen here")
    files = find_vae(where)
    data = validate(DataConfig, Document({"name": name, "size": size, "vae": files.named(vae_name)}))
    facts = data_facts(data)  # proves that the images are RGB and that the factor divides their side
    target = latents_path(data, root)
    if target.exists():
        found = read_manifest(target).vae
        if found is not None and found.hash != files.hash:
            raise UserError(
                f"{target} holds latents of another VAE (hash {found.hash[:12]}, not {files.hash[:12]}): give this one a "
                f"name of its own with --vae-name, or {remedy(target)}"
            )
        return open_data(data, root)
    images = pack(name, root, folder, size=size, progress=progress)
    on = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    vae = load_vae(files, on, precision)
    config: Any = vae.config
    made_with = VaeFacts(
        name=str(data.vae),
        hash=files.hash,
        precision=precision,
        scale=float(config.scaling_factor),
        shift=float(config.shift_factor or 0),
        channels=facts.channels,
        factor=files.factor,
        pixels=images.manifest.digest,
    )
    kept = {"size": facts.size, "channels": facts.channels, "vae": made_with}
    none_yet: dict[str, Any] = {"counts": {}, "shards": {}, "sha256": {}, "digest": "", "shape": None, "dtype": None}
    draft = Manifest.model_validate(images.manifest.model_dump() | none_yet | {"notes": {"vae": where}} | kept)
    shape = (2, 2, facts.channels, facts.size, facts.size)
    write_pack(
        target,
        draft,
        {split: _rows(images.split(split), shape, vae, split) for split in images.manifest.counts},
        inputs=f"{images.manifest.digest} {files.hash} {precision}",
        beside={CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.folder / WEIGHTS_FILE},
        progress=progress,
    )
    assert (target / MANIFEST_FILE).exists()
    return open_data(data, root)


def _rows(split: Split, shape: tuple[int, ...], vae: Any, name: str) -> Rows:
    """The split's posteriors, encoded when they are read."""

    def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        moments = encode(vae, torch.from_numpy(split.images[start:stop])).numpy()
        with np.errstate(over="ignore"):  # told below
            stored = moments.astype(MOMENTS)
        bad = np.flatnonzero(~np.isfinite(stored).reshape(len(stored), -1).all(1))
        if len(bad):
            raise UserError(
                f"the VAE gives image {start + int(bad[0])} of the {name} split a posterior that float16 does not hold (NaN, "
                "or beyond 65504): expected a VAE whose latents are of moderate size"
            )
        return stored, np.ones(stop - start, np.bool_)

    return Rows(split.labels, shape, MOMENTS, read)
