"""Packing of latents: for each packed image and its mirror image, the mean and standard deviation of the VAE's posterior.

The two files of the VAE are copied into the pack, so that samples can be decoded wherever the pack is, even if the VAE's folder
is gone. The VAE's hundreds of megabytes are small compared with the latents of a real data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umd_bench.config.documents.document import Document
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.datasets import DATASETS, data_facts
from umd_bench.data.open_data import latents_folder, open_data
from umd_bench.data.packs.manifest import VaeFacts, read_manifest, remedy
from umd_bench.data.packs.pack import Pack, Split
from umd_bench.data.packs.row_source import RowSource
from umd_bench.data.packs.writer import PackProgress, write_pack
from umd_bench.data.vae import CONFIG_FILE, PRECISIONS, WEIGHTS_FILE, VaeFiles, encode, find_vae, load_vae

DEVICES = ("auto", "cpu", "cuda")
MOMENTS = np.dtype(np.float16)


@dataclass(frozen=True)
class LatentRequest:
    """A checked request for latents: the facts that are known before any image is read."""

    data: DataConfig
    root: Path
    where: str
    files: VaeFiles
    precision: str
    device: torch.device

    @classmethod
    def checked(
        cls,
        name: str,
        root: Path,
        where: str,
        *,
        vae_name: str | None = None,
        size: int | None = None,
        precision: str = "fp32",
        device: str = "auto",
    ) -> LatentRequest:
        """A request for latents of the data set ``name`` at ``size`` pixels by the VAE ``where``, below the data root ``root``.

        ``precision`` is the encoder's, fp32 or bf16; latents are stored as float16. Raises :class:`UserError` as
        :func:`find_vae` does, :class:`FieldError` for an option that is not accepted and for images that the VAE cannot take,
        and :class:`UserError` if latents of another VAE have the same name.
        """
        if precision not in PRECISIONS:
            raise FieldError("--vae-precision", precision, one_of(PRECISIONS))
        if device not in DEVICES:
            raise FieldError("--device", device, one_of(DEVICES))
        cuda = torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise FieldError("--device", device, "expected auto or cpu, since there is no CUDA device")
        files = find_vae(where)
        data = validate(DataConfig, Document({"name": name, "size": size, "vae": files.latents_name(vae_name)}))
        if name in DATASETS:
            data_facts(data)  # not for a user's own data set, whose other facts are unknown before it is packed
        elif data.side is None or data.side % files.factor:
            raise FieldError("data.size", size, f"expected a multiple of {files.factor}, by which the VAE divides a side")
        request = cls(data, root, where, files, precision, torch.device("cuda" if cuda and device != "cpu" else "cpu"))
        if request.target.exists():
            packed = read_manifest(request.target).vae
            if packed is None or packed.hash != files.hash:
                other = (
                    "no latents"
                    if packed is None
                    else f"latents of another VAE (hash {packed.hash[:12]}, not {files.hash[:12]})"
                )
                raise UserError(
                    f"{request.target} holds {other}: give this VAE another name with --vae-name, or {remedy(request.target)}"
                )
        return request

    @property
    def target(self) -> Path:
        """The folder of the pack."""
        return latents_folder(self.data, self.root)


def pack_latents(request: LatentRequest, images: Pack, *, progress: Callable[[PackProgress], None] = lambda _: None) -> Pack:
    """Encode the packed ``images``, unless their latents are packed already; an interrupted packing is continued.

    Raises :class:`UserError` for images that are not RGB, for weights that cannot be loaded, for a posterior that float16
    cannot represent, and as :func:`write_pack` does.
    """
    files, facts = request.files, data_facts(request.data, root=request.root)
    if not request.target.exists():
        vae = load_vae(files, request.device, request.precision)
        config: Any = vae.config
        made_with = VaeFacts(
            name=str(request.data.vae),
            hash=files.hash,
            precision=request.precision,
            scale=float(config.scaling_factor),
            shift=float(config.shift_factor or 0),
            channels=facts.channels,
            factor=files.factor,
            pixels=images.manifest.digest,
        )
        of_latents = {"size": facts.size, "channels": facts.channels, "vae": made_with, "notes": {"vae": request.where}}
        not_yet: dict[str, Any] = {"counts": {}, "shards": {}, "sha256": {}, "digest": "", "shape": None, "dtype": None}
        shape = (2, 2, facts.channels, facts.size, facts.size)
        write_pack(
            request.target,
            images.manifest.model_copy(update=not_yet | of_latents),
            {split: _rows(images.split(split), shape, vae, split) for split in images.manifest.counts},
            inputs=f"{images.manifest.digest} {files.hash} {request.precision}",
            extra_files={CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.folder / WEIGHTS_FILE},
            progress=progress,
        )
    return open_data(request.data, request.root)


def _rows(split: Split, shape: tuple[int, ...], vae: Any, name: str) -> RowSource:
    """The posteriors of a split's images; an image is encoded when its row is read."""

    def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        moments = encode(vae, torch.from_numpy(split.images[start:stop])).numpy()
        with np.errstate(over="ignore"):  # reported below
            stored = moments.astype(MOMENTS)
        bad = np.flatnonzero(~np.isfinite(stored).reshape(len(stored), -1).all(1))
        if len(bad):
            raise UserError(
                f"the VAE gives image {start + int(bad[0])} of the {name} split a posterior that float16 cannot represent "
                "(NaN, or beyond 65504): expected a VAE whose latents are of moderate size"
            )
        return stored, np.ones(stop - start, np.bool_)

    return RowSource(split.labels, shape, MOMENTS, read)
