"""Image auto-encoders whose latents are trained on: diffusers' `AutoencoderKL`, found on this machine, read without pickle.

A VAE is a folder with diffusers' ``config.json`` and ``diffusion_pytorch_model.safetensors``, or the name of one that Hugging
Face's cache has; nothing is ever downloaded. Its hash is of its configuration and its weights. Shapes: B images, C latent
channels, h = H/factor, w = W/factor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.data.batches.batches import to_uint8, to_unit
from umd_bench.data.datasets import VAES, vae_named
from umd_bench.data.packs.manifest import sha256_of
from umd_bench.data.packs.pack import Pack

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CLASS = "AutoencoderKL"
_AT_ONCE = 16  # images through the network; changes no image but in its last bits
_NAMED_LONG = 60  # letters of a name that stands in a folder's

# x_0 as a sampler leaves it, [B, C, h, w] or images [B, C, H, W] in [-1, 1] -> images uint8 [B, 3 or C, H, W] on the CPU
Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class VaeFiles:
    """A VAE on disk. ``config`` is without what a writer adds about itself (``_name_or_path`` and so on)."""

    label: str  # what its folder, or its repository, is called
    folder: Path
    config: Mapping[str, Any]
    hash: str

    @property
    def factor(self) -> int:
        """The image's side over the latent's: every level but the last halves it."""
        return int(2 ** (len(self.config["block_out_channels"]) - 1))

    @property
    def channels(self) -> int:
        """Of a latent."""
        return int(self.config["latent_channels"])

    @property
    def config_bytes(self) -> bytes:
        """The configuration as a file that diffusers reads, the same for the same VAE."""
        return (json.dumps({"_class_name": _CLASS, **self.config}, indent=1, sort_keys=True) + "\n").encode()

    def named(self, name: str | None) -> str:
        """The name of its latents: ``name``, or the label with the geometry behind it where the name tells none.

        Raises :class:`FieldError` for a name that tells another geometry.
        """
        asked = "--vae-name" if name is not None else "--vae"
        if name is None:
            name = "".join(c if c.isalnum() and c.isascii() else "-" for c in self.label.lower()).strip("-") or "vae"
            geometry = f"-f{self.factor}c{self.channels}"
            name = name if name in VAES else name.removesuffix(geometry)[:_NAMED_LONG] + geometry
        told = vae_named(name, asked)
        if (told.factor, told.channels) != (self.factor, self.channels):
            raise FieldError(
                asked,
                name,
                f"it tells of {told.channels} channels and sides divided by {told.factor}; the VAE in {self.folder} has "
                f"{self.channels} channels and divides by {self.factor}",
            )
        return name


def find_vae(where: str) -> VaeFiles:
    """The VAE in the folder ``where``, or of that name in Hugging Face's cache. Reads and hashes, and loads no network.

    Raises :class:`UserError` where it is neither, where a file is missing, and for a configuration that is not of a VAE of RGB
    images with one scale.
    """
    require_diffusers()
    config_path, weights = _files(where)
    try:
        stated = json.loads(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{config_path} cannot be read as JSON ({error})") from None
    config = {key: value for key, value in stated.items() if not key.startswith("_")} if isinstance(stated, dict) else {}
    if not config or stated.get("_class_name", _CLASS) != _CLASS:
        named = stated.get("_class_name") if isinstance(stated, dict) else None
        raise UserError(f"{config_path} is the configuration of {named or 'something else'}: expected diffusers' {_CLASS}")
    for field, wanted in (("in_channels", 3), ("out_channels", 3)):
        if config.get(field, 3) != wanted:
            raise UserError(f"{config_path} has {field} = {config[field]}: expected {wanted}, a VAE of RGB images")
    if not config.get("block_out_channels") or not isinstance(config.get("latent_channels"), int):
        raise UserError(f"{config_path} states no block_out_channels or no latent_channels: expected diffusers' {_CLASS}")
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise UserError(f"{config_path} normalises each channel apart (latents_mean, latents_std): expected one scaling_factor")
    facts = json.dumps([config, sha256_of(weights)], sort_keys=True, separators=(",", ":"))
    label = Path(where).expanduser().absolute().name
    return VaeFiles(label, config_path.parent, config, hashlib.sha256(facts.encode()).hexdigest())


def require_diffusers() -> None:
    """Raise :class:`UserError` where the library that VAEs are read with is not installed."""
    try:
        import diffusers  # noqa: F401
    except ImportError:
        raise UserError("latents need the library diffusers: install it with pip install 'umd-bench[latents]'") from None


def load_vae(files: VaeFiles, device: torch.device, precision: str = "fp32") -> Any:
    """The network (diffusers' ``AutoencoderKL``) on ``device``, in eval mode and without gradients.

    Raises :class:`FieldError` for an unknown precision, :class:`UserError` for weights that do not fit the configuration.
    """
    from diffusers import AutoencoderKL
    from diffusers.utils import logging

    if precision not in PRECISIONS:
        raise FieldError("--vae-precision", precision, one_of(PRECISIONS))
    logging.disable_progress_bar()
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # what does not fit is an error below, in one sentence
    try:
        vae, fit = AutoencoderKL.from_pretrained(
            str(files.folder),
            torch_dtype=PRECISIONS[precision],
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the VAE in {files.folder} cannot be loaded ({reason})") from None
    finally:
        logging.set_verbosity(said)
    wrong = [key for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in fit[part]]
    if wrong:
        raise UserError(f"the weights in {files.folder} are not of its configuration: {len(wrong)} tensors differ, {wrong[0]}")
    return vae.to(device).eval().requires_grad_(requires_grad=False)


@torch.inference_mode()
def encode(vae: Any, images: Tensor) -> Tensor:
    """Posteriors of uint8 images [B, 3, H, W] and of their mirror images: float32 [B, 2 views, 2 moments, C, h, w] on the CPU.

    The moments are the mean and the standard deviation, of latents before any scale.
    """
    parts = []
    for some in torch.split(images, _AT_ONCE):
        x = to_unit(some.to(vae.device)).to(vae.dtype)
        posteriors = [vae.encode(view).latent_dist for view in (x, x.flip(-1))]
        parts.append(torch.stack([torch.stack([p.mean, p.std], 1).float() for p in posteriors], 1).cpu())
    return torch.cat(parts)


def rounded(x_0: Tensor) -> Tensor:
    """The decoder of what is an image already: [B, C, H, W] in [-1, 1] to uint8 on the CPU."""
    return to_uint8(x_0).cpu()


def decoder_of(pack: Pack, device: torch.device) -> Decode:
    """What turns x_0 of a model trained on ``pack`` into images: the pack's own VAE, or, of images, rounding alone.

    Raises :class:`UserError` where the VAE in the pack is missing, or not the one that its latents were made with.
    """
    facts = pack.manifest.vae
    if facts is None:
        return rounded
    files = find_vae(str(pack.path))
    if files.hash != facts.hash:
        raise UserError(
            f"the VAE in {pack.path} is not the one that its latents were made with (hash {files.hash[:12]}, expected "
            f"{facts.hash[:12]}); remove the folder and pack the latents again"
        )
    vae = load_vae(files, device)

    @torch.inference_mode()
    def decode(x_0: Tensor) -> Tensor:
        z = x_0.to(device, torch.float32) / facts.scale + facts.shift
        return torch.cat([to_uint8(vae.decode(some).sample).cpu() for some in torch.split(z, _AT_ONCE)])

    return decode


def _files(where: str) -> tuple[Path, Path]:
    """The two files of a VAE."""
    folder = Path(where).expanduser()
    if folder.is_dir():
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / name).is_file():
                why = "" if name == CONFIG_FILE else "; weights in other forms (.bin is pickle) are not read"
                raise UserError(f"{folder} is no folder of a VAE: it has no {name}{why}")
        return folder / CONFIG_FILE, folder / WEIGHTS_FILE
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(where, name) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except HFValidationError:
        found = []
    if len(found) == 2 and all(isinstance(path, str) for path in found):
        return Path(str(found[0])), Path(str(found[1]))
    raise UserError(
        f"--vae = {where!r} is not accepted: it is no folder here, and Hugging Face's cache does not have its {CONFIG_FILE} "
        f"and {WEIGHTS_FILE}; nothing is downloaded here (`hf download {where}` does it, where there is a network)"
    )
