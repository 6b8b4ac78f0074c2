"""Initial weights, by the rules of the official implementation (small-vision, commit 3d4555b).

Each parameter has its own generator. So with one seed, parameters of the same name and shape have equal values in all models.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import WeightsStage
from umd_bench.engine.networks.auto_encoder import AutoEncoder

Rule = Callable[[Tensor, torch.Generator], object]

# Standard deviation of a unit normal truncated at 2; flax divides by it to get the intended variance.
_TRUNCATED_STD = 0.87962566103423978


def build_model(
    config: ModelConfig, *, size: int, channels: int, classes: int = 0, seed: int, device: torch.device | str = "cpu"
) -> AutoEncoder:
    """An auto-encoder with initial weights, float32, on ``device``. Neither reads nor changes the global random state."""
    with torch.device("meta"):
        model = AutoEncoder(config, size=size, channels=channels, classes=classes)
    model.to_empty(device=device)
    init_weights(model, seed)
    return model


def initial_model(
    spec: StageSpec, *, size: int, channels: int, classes: int, device: torch.device | str = "cpu"
) -> AutoEncoder:
    """The model of a training stage before its first step, on ``device``; a finetune stage loads its parent's weights over it.

    ``size`` (pixels or latent positions), ``channels`` and ``classes`` describe the data; a stage without labels has no label
    embedding. The weights depend on ``spec.model`` and ``spec.seed`` alone. Raises :class:`FieldError` for a published
    family, which is not trained here, and if the patch does not divide ``size``.
    """
    spec.model.require_own("trained")
    known = classes if isinstance(spec.stage, WeightsStage) and spec.stage.labels else 0
    return build_model(spec.model, size=size, channels=channels, classes=known, seed=spec.seed, device=device)


@torch.no_grad()
def init_weights(model: nn.Module, seed: int) -> None:
    """Draw every parameter from ``derive_seed(seed, "init", name)``, on the CPU so that all devices get the same weights."""
    for name, parameter in model.named_parameters():
        values = torch.empty(parameter.shape)
        _rule(name, parameter)(values, torch.Generator().manual_seed(derive_seed(seed, "init", name)))
        parameter.copy_(values)


def _rule(name: str, parameter: Tensor) -> Rule:
    """The initialiser of a parameter, by its name."""
    *_, module, leaf = ["", *name.split(".")]
    if leaf == "bias":
        return _normal(1e-6) if module in ("fc1", "fc2") and ".mlp." in name else _constant(0)
    if leaf in ("pos_embed", "decoder_pos_embed"):
        return _normal(1 / math.sqrt(parameter.shape[1]))
    if leaf == "cls_token" or module in ("modulation", "final_modulation"):
        return _constant(0)
    if leaf == "mask_token" or module == "head":
        return _normal(0.02)
    if module == "table":
        return _normal(1 / math.sqrt(parameter.shape[1]))
    if "norm" in module:
        return _constant(1)
    if module == "qkv":
        return _each_third(_xavier_uniform)
    if ".attn." in name or ".mlp." in name:
        return _xavier_uniform
    return _lecun_normal  # patch_embed.proj, time_embed, label_embed


def _constant(value: float) -> Rule:
    return lambda values, _: values.fill_(value)


def _normal(std: float) -> Rule:
    return lambda values, generator: values.normal_(std=std, generator=generator)


def _xavier_uniform(values: Tensor, generator: torch.Generator) -> object:
    return nn.init.xavier_uniform_(values, generator=generator)


def _each_third(rule: Rule) -> Rule:
    """Initialise q, k and v separately, so that Xavier's fans are computed for each of them, not for the joint matrix."""
    return lambda values, generator: [rule(part, generator) for part in values.chunk(3)]


def _lecun_normal(values: Tensor, generator: torch.Generator) -> object:
    """Truncated normal of variance 1/fan_in."""
    std = math.sqrt(1 / values[0].numel()) / _TRUNCATED_STD
    return nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std, generator=generator)
