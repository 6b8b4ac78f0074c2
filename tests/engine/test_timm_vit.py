"""An encoder that is converted to a plain timm ViT keeps its representation."""

from __future__ import annotations

import pytest
import timm
import torch
from engine.published.published_files import dit_state, mae_state
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.published.dit import DiT, read_dit
from umd_bench.engine.published.mae import MaeEncoder, read_mae
from umd_bench.engine.timm_vit import ARCHITECTURE, TimmViT, to_timm

CONFIG = ModelConfig(patch=4, width=24, depth=3, decoder_depth=1, heads=3)


def trained(config: ModelConfig, *, size: int, channels: int, classes: int = 0) -> AutoEncoder:
    """A model whose parameters all differ from their initial values, as after training. No gate is 0 and some are negative."""
    model = (
        build_model(config, size=size, channels=channels, classes=classes, seed=0).eval().requires_grad_(requires_grad=False)
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def timm_model(vit: TimmViT) -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model(ARCHITECTURE, **vit.args).eval()
    model.load_state_dict(vit.state)
    return model


def represented(vit: TimmViT, x: Tensor) -> Tensor:
    with torch.inference_mode():
        representation: Tensor = eval(vit.representation, {"model": timm_model(vit), "x": x})
    return representation


def images(size: int, channels: int) -> Tensor:
    return torch.rand(5, channels, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("class_tokens", [1, 2, 4])
@pytest.mark.parametrize(("size", "channels", "classes"), [(16, 3, 0), (8, 1, 10), (12, 4, 0)])
def test_timm_gives_the_same_representation(class_tokens: int, size: int, channels: int, classes: int) -> None:
    config = CONFIG.model_copy(update={"class_tokens": class_tokens})
    model = trained(config, size=size, channels=channels, classes=classes)
    gates = model.blocks[0].modulation(model.condition(torch.zeros(1, dtype=torch.int64), None)).chunk(6, dim=1)[2]
    assert gates.min() < -0.05 < 0.05 < gates.max()
    x = images(size, channels)
    expected = model.represent(x, torch.zeros(5, dtype=torch.int64))
    vit = to_timm(model, config, size=size, channels=channels)
    torch.testing.assert_close(represented(vit, x), expected, rtol=1e-5, atol=1e-5)


def test_only_parameters_that_timm_has_are_written() -> None:
    vit = to_timm(trained(CONFIG, size=16, channels=3, classes=10), CONFIG, size=16, channels=3)
    assert vit.state.keys() == timm_model(vit).state_dict().keys()
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in vit.state.values())


@pytest.mark.parametrize("pool", ["class", "patches"])
def test_an_imported_mae_is_converted_too(pool: str) -> None:
    weights = read_mae(mae_state(), heads=3)
    model = MaeEncoder(weights.model, size=16, channels=3, pool=pool)  # type: ignore[arg-type]
    model.load_state_dict(weights.state)
    model.eval().requires_grad_(requires_grad=False)
    vit = to_timm(model, weights.model, size=16, channels=3)
    x = images(16, 3)
    torch.testing.assert_close(represented(vit, x), model.represent(x, torch.zeros(5)), rtol=1e-5, atol=1e-5)


def test_models_that_timm_cannot_express_are_refused_with_the_reason() -> None:
    config = CONFIG.model_copy(update={"adaln": False})
    with pytest.raises(UserError, match="every block takes the time as one more token"):
        to_timm(trained(config, size=16, channels=3), config, size=16, channels=3)
    weights = read_dit(dit_state(), heads=3)
    with pytest.raises(UserError, match="a time that is never 0"):
        to_timm(DiT(weights.model, size=8, channels=1, classes=10), weights.model, size=8, channels=1)
