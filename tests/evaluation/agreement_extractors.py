"""Extractors against independent implementations: each row of ``rows()`` is one comparison, with its largest difference.

test_agreement_extractors.py sets the tolerances, and agreement_table.py prints the rows. Differences are relative to the
largest number of the other implementation.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from evaluation.comparison import Row
from torch import Tensor

from umd_bench.evaluation.extractors import efficientnet, inception, timm_network


def rows() -> list[Row]:
    """Every comparison, on the CPU. Images come from a fixed seed, and so do weights that cannot be shipped."""
    return [*inception_rows(), *efficientnet_rows(), *resize_rows()]


def images(n: int, side: int) -> Tensor:
    """uint8 [n, 3, side, side]: enlarged noise, which is neither flat nor white."""
    noise = torch.rand(n, 3, 7, 7, generator=torch.Generator().manual_seed(n + side))
    return (F.interpolate(noise, size=(side, side), mode="bicubic").clamp(0, 1) * 255).round().to(torch.uint8)


def random_inception_weights() -> bytes:
    """Random weights of Inception's shapes, as torch saves them, scaled so that activations neither vanish nor explode."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    shapes: dict[str, Tensor] = {}

    def remember(self: torch.nn.Module, state: object) -> None:
        shapes.update(self.state_dict())

    load, fidelity.FeatureExtractorInceptionV3.load_state_dict = (
        fidelity.FeatureExtractorInceptionV3.load_state_dict,
        remember,
    )
    try:
        fidelity.FeatureExtractorInceptionV3("shapes", ["2048"], feature_extractor_weights_path=_saved({}))
    finally:
        fidelity.FeatureExtractorInceptionV3.load_state_dict = load
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, x in shapes.items():
        if x.ndim > 1:
            state[name] = torch.randn(x.shape, generator=generator) * (2 / x[0].numel()) ** 0.5
        elif name.endswith("running_var") or name.endswith("bn.weight"):
            state[name] = torch.ones_like(x)
        else:
            state[name] = 0.1 * torch.rand(x.shape, generator=generator) if x.is_floating_point() else x
    return _saved(state).getvalue()


def inception_rows() -> Iterator[Row]:
    """Inception compared with torch-fidelity's extractor, one layer at a time, and (mixed_6/conv) with its blocks."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights, x = random_inception_weights(), images(3, 64)
    pooled, logits, spatial = inception.Inception(inception.build_network(weights))(x, spatial=True)
    assert spatial is not None
    for layer, ours in (("2048", pooled), ("logits_unbiased", logits)):
        (theirs,) = FeatureExtractorInceptionV3("one", [layer], feature_extractor_weights_path=io.BytesIO(weights))(x)
        yield Row(f"Inception-v3 {layer}, random weights, 64 px", "torch-fidelity", _difference(ours, theirs))
    theirs = _mixed_6_conv(FeatureExtractorInceptionV3("one", ["768"], feature_extractor_weights_path=io.BytesIO(weights)), x)
    yield Row(
        "Inception-v3 mixed_6/conv, 7 channels, random weights",
        "torch-fidelity's blocks, one by one",
        _difference(spatial, theirs),
    )


def _mixed_6_conv(network: torch.nn.Module, x: Tensor) -> Tensor:
    """ADM's spatial features: runs the network's blocks one by one, up to the 1x1 branch of the seventh mixed block."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    x = (interpolate_bilinear_2d_like_tensorflow1x(x.float(), size=(299, 299), align_corners=False) - 128) / 128
    for name, block in network.named_children():
        if name == "Mixed_6d":
            branch = block.branch1x1
            y = branch.conv(x)
            mean, variance = branch.bn.running_mean, branch.bn.running_var
            scale, shift = branch.bn.weight, branch.bn.bias
            normed = (y - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-3).sqrt()
            activated = (normed * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).clamp(min=0).numpy()
            return torch.from_numpy(np.moveaxis(activated, 1, 3)[..., :7].reshape(len(activated), -1))
        x = block(x)
    raise AssertionError("torch-fidelity's network has no Mixed_6d")


def efficientnet_rows() -> Iterator[Row]:
    """EfficientNet compared with a second forward pass, written here from the parameter names in the weight file."""
    weights = efficientnet.find_weights()
    state = torch.load(io.BytesIO(weights), weights_only=True)
    network = efficientnet.EfficientNet(efficientnet.build_network(weights))
    for side in (64, 224):
        x = images(4, side)
        with torch.inference_mode():
            pooled, logits = network(x)
            theirs, their_logits = lite0(state, x)
        second = "a second forward pass, written from the parameter names in the weight file"
        yield Row(f"EfficientNet-Lite0 features, {side} px", second, _difference(pooled, theirs))
        yield Row(f"EfficientNet-Lite0 logits, {side} px", second, _difference(logits, their_logits))


def lite0(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """EfficientNet-Lite0 by its paper's table, with TensorFlow's padding: features [B, 1280] and logits [B, 1000]."""

    def convolved(x: Tensor, name: str, norm: str, stride: int = 1, *, depthwise: bool = False, act: bool = True) -> Tensor:
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        # TensorFlow's "same" padding: the output has ceil(side / stride) pixels; an odd pixel of padding goes after the image.
        need = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[:-3:-1]]
        x = F.pad(x, [edge for n in need for edge in (n // 2, n - n // 2)])
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] if depthwise else 1)
        mean, variance, scale, shift = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)
        return x.clamp(0, 6) if act else x

    x = convolved((images.float() - 127.5) / 127.5, "_conv_stem", "_bn0", stride=2)
    block = 0
    for repeats, first_stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for i in range(repeats):
            name, before, stride = f"_blocks.{block}.", x, first_stride if i == 0 else 1
            if f"{name}_expand_conv.weight" in state:
                x = convolved(x, f"{name}_expand_conv", f"{name}_bn0")
            x = convolved(x, f"{name}_depthwise_conv", f"{name}_bn1", stride, depthwise=True)
            x = convolved(x, f"{name}_project_conv", f"{name}_bn2", act=False)
            if stride == 1 and x.shape == before.shape:
                x = x + before
            block += 1
    pooled = convolved(x, "_conv_head", "_bn1").mean((2, 3))
    return pooled, pooled @ state["_fc.weight"].T + state["_fc.bias"]


def resize_rows() -> Iterator[Row]:
    """Our resizing compared with torchvision's, and with Pillow's on floats, which is an independent implementation."""
    from PIL import Image
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    for side in (64, 256):
        x = images(2, side)
        ours = timm_network.resized(x, 224)
        theirs = resize(x.float(), [224, 224], InterpolationMode.BICUBIC, antialias=True)
        yield Row(f"bicubic with antialiasing, {side} -> 224 px", "torchvision", _difference(ours, theirs))
        pillow = [
            [
                np.asarray(Image.fromarray(channel.float().numpy(), mode="F").resize((224, 224), Image.Resampling.BICUBIC))
                for channel in image
            ]
            for image in x
        ]
        yield Row(
            f"bicubic with antialiasing, {side} -> 224 px",
            "Pillow, on floats",
            _difference(ours, torch.tensor(np.array(pillow))),
        )


def _difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def _saved(value: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


if __name__ == "__main__":
    for row in rows():
        print(f"| {row.quantity} | {row.library} | {row.difference:.1e} |")
