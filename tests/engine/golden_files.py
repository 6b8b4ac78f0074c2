"""Numbers of the official implementation (small-vision, commit 3d4555b) from tests/golden, in this project's layout."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from umd_bench.config.trial.model import ModelConfig
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.published.small_vision_conversion import from_official

GOLDEN = Path(__file__).parents[1] / "golden"
TAGS = ("adaln0_nc0", "adaln1_nc0", "adaln1_nc10")
HEADS = 3
Arrays = dict[str, npt.NDArray[Any]]


@cache
def arrays(name: str) -> Arrays:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def decay_mask() -> dict[str, bool]:
    mask: dict[str, bool] = json.loads((GOLDEN / "weight_decay_mask.json").read_text())
    return mask


def images(nhwc: npt.NDArray[Any]) -> Tensor:
    """[B, H, W, C] -> [B, C, H, W]."""
    return torch.from_numpy(nhwc).permute(0, 3, 1, 2).contiguous()


def tiny_model(tag: str) -> AutoEncoder:
    """The official tiny model of ``tag`` with its parameters."""
    config = ModelConfig(patch=4, width=48, depth=2, decoder_depth=1, heads=HEADS, adaln=tag.startswith("adaln1"))
    model = AutoEncoder(config, size=16, channels=3, classes=int(tag.split("nc")[1]))
    model.load_state_dict(from_official(arrays(f"params_{tag}")))
    return model


def worst(actual: Tensor, expected: Tensor | npt.NDArray[Any]) -> float:
    """The largest absolute error, divided by the largest absolute expected value."""
    expected = torch.as_tensor(expected).double()
    return ((actual.detach().double() - expected).abs().max() / expected.abs().max()).item()


def worst_by_row(actual: Tensor, expected: npt.NDArray[Any]) -> list[float]:
    """:func:`worst` of each image of a batch."""
    return [worst(a, e) for a, e in zip(actual, expected, strict=True)]
