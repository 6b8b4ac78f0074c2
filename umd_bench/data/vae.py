"""VAEs that latents are made with: diffusers' ``AutoencoderKL``, read from this machine and without pickle.

A VAE is a folder with diffusers' ``config.json`` and ``diffusion_pytorch_model.safetensors``, or the name of a repository that
is in Hugging Face's cache; nothing is downloaded. Its hash covers its configuration and its weights. Shapes: B images, C latent
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
from umd_bench.data.datasets import VAES, vae_geometry
from umd_bench.data.packs.manifest import sha256_of
from umd_bench.data.packs.pack import Pack

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CLASS = "AutoencoderKL"
_CHUNK = 16  # images per forward pass; another number changes images in their last bits only
_MAX_LABEL = 60  # letters of a label that becomes a part of a folder's name

# x_0 from a sampler, latents [B, C, h, w] or images [B, C, H, W] in [-1, 1] -> images uint8 [B, 3 or C, H, W] on the CPU
Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class VaeFiles:
    """A VAE on disk. ``config`` has no private entries such as ``_name_or_path``, which depend on the writer."""

    label: str  # name of its folder or repository
    folder: Path
    config: Mapping[str, Any]
    hash: str

    @property
    def factor(self) -> int:
        """The image's side divided by the latent's: every level but the last halves it."""
        return int(2 ** (len(self.config["block_out_channels"]) - 1))

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return int(self.config["latent_channels"])

    @property
    def config_bytes(self) -> bytes:
        """The configuration as a file that diffusers reads; equal for equal VAEs."""
        return (json.dumps({"_class_name": _CLASS, **self.config}, indent=1, sort_keys=True) + "\n").encode()

    def latents_name(self, name: str | None) -> str:
        """The name of the VAE's latents: ``name`` if given, else its label in lower case.

        The geometry is appended to a label that is not a known VAE's name. Raises :class:`FieldError` for a name that states
        another geometry, and for an unknown ``name`` that states none.
        """
        option = "--vae-name" if name is not None else "--vae"
        if name is None:
            name = "".join(c if c.isalnum() and c.isascii() else "-" for c in self.label.lower()).strip("-") or "vae"
            geometry = f"-f{self.factor}c{self.channels}"
            name = name if name in VAES else name.removesuffix(geometry)[:_MAX_LABEL] + geometry
        stated = vae_geometry(name, option)
        if (stated.factor, stated.channels) != (self.factor, self.channels):
            raise FieldError(
                option,
                name,
                f"it states {stated.channels} channels and sides divided by {stated.factor}; the VAE in {self.folder} has "
                f"{self.channels} channels and divides by {self.factor}",
            )
        return name


def find_vae(where: str) -> VaeFiles:
    """The VAE in the folder ``where``, or of that name in Hugging Face's cache. Hashes the files; does not load the network.

    Raises :class:`UserError` if neither exists, if a file is missing, and if the configuration is not for a VAE of RGB images
    with one scaling factor for all channels.
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
        raise UserError(f"{config_path} configures {named or 'something else'}: expected diffusers' {_CLASS}")
    for field, wanted in (("in_channels", 3), ("out_channels", 3)):
        if config.get(field, 3) != wanted:
            raise UserError(f"{config_path} has {field} = {config[field]}: expected {wanted}, a VAE of RGB images")
    if not config.get("block_out_channels") or not isinstance(config.get("latent_channels"), int):
        raise UserError(f"{config_path} lacks block_out_channels or latent_channels: expected diffusers' {_CLASS}")
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise UserError(f"{config_path} normalises each channel (latents_mean, latents_std): expected a single scaling_factor")
    facts = json.dumps([config, sha256_of(weights)], sort_keys=True, separators=(",", ":"))
    label = Path(where).expanduser().absolute().name
    return VaeFiles(label, config_path.parent, config, hashlib.sha256(facts.encode()).hexdigest())


def require_diffusers() -> None:
    """Raise :class:`UserError` if diffusers, which reads VAEs, is not installed."""
    try:
        import diffusers  # noqa: F401
    except ImportError:
        raise UserError("latents need the library diffusers: install it with pip install 'umd-bench[latents]'") from None


def load_vae(files: VaeFiles, device: torch.device, precision: str = "fp32") -> Any:
    """The network (diffusers' ``AutoencoderKL``) on ``device``, in eval mode and without gradients.

    Raises :class:`FieldError` for an unknown precision, :class:`UserError` for weights that do not match the configuration.
    """
    from diffusers import AutoencoderKL
    from diffusers.utils import logging

    if precision not in PRECISIONS:
        raise FieldError("--vae-precision", precision, one_of(PRECISIONS))
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # mismatches are reported in one sentence below
    try:
        vae, report = AutoencoderKL.from_pretrained(
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
        logging.set_verbosity(verbosity)
    wrong = [key for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[part]]
    if wrong:
        raise UserError(
            f"the weights in {files.folder} do not match its configuration: {len(wrong)} tensors differ, first {wrong[0]}"
        )
    return vae.to(device).eval().requires_grad_(requires_grad=False)


@torch.inference_mode()
def encode(vae: Any, images: Tensor) -> Tensor:
    """Posteriors of uint8 images [B, 3, H, W] and of their mirror images: float32 [B, 2 views, 2 moments, C, h, w] on the CPU.

    The moments are the mean and the standard deviation of the latents, not yet scaled.
    """
    parts = []
    for chunk in torch.split(images, _CHUNK):
        x = to_unit(chunk.to(vae.device)).to(vae.dtype)
        posteriors = [vae.encode(view).latent_dist for view in (x, x.flip(-1))]
        parts.append(torch.stack([torch.stack([p.mean, p.std], 1).float() for p in posteriors], 1).cpu())
    return torch.cat(parts)


def round_to_images(x_0: Tensor) -> Tensor:
    """Decode x_0 of a model of pixels: [B, C, H, W] in [-1, 1] to uint8 on the CPU."""
    return to_uint8(x_0).cpu()


def decoder_for(pack: Pack, device: torch.device) -> Decode:
    """The function that turns x_0 of a model trained on ``pack`` into images: the pack's own VAE, or rounding for pixels.

    Raises :class:`UserError` if the VAE in the pack is missing, or is not the one that its latents were made with.
    """
    facts = pack.manifest.vae
    if facts is None:
        return round_to_images
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
        return torch.cat([to_uint8(vae.decode(chunk).sample).cpu() for chunk in torch.split(z, _CHUNK)])

    return decode


def _files(where: str) -> tuple[Path, Path]:
    """The configuration and the weights of a VAE."""
    folder = Path(where).expanduser()
    if folder.is_dir():
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / name).is_file():
                why = "" if name == CONFIG_FILE else "; other formats of weights are not read (.bin is pickle)"
                raise UserError(f"{folder} is not the folder of a VAE: it has no {name}{why}")
        return folder / CONFIG_FILE, folder / WEIGHTS_FILE
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = [try_to_load_from_cache(where, name) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except HFValidationError:
        cached = []
    if len(cached) == 2 and all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])), Path(str(cached[1]))
    raise UserError(
        f"--vae = {where!r} is not accepted: there is no such folder, and Hugging Face's cache does not have its {CONFIG_FILE} "
        f"and {WEIGHTS_FILE}; this program downloads nothing (`hf download {where}` does, where there is a network)"
    )
