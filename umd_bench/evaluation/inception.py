"""The Inception-v3 that the Fréchet inception distance is defined by (Heusel et al., arXiv 1706.08500), through torch-fidelity.

The network is the TensorFlow graph of 2015-12-05 with its own resizing to 299 pixels. Its weights are one public file; they are
taken from an explicit place, checked by SHA-256 and never downloaded from here.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umd_bench.config.errors import UserError

VARIABLE = "UMD_BENCH_INCEPTION"
FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# Where its authors publish it; torch-fidelity's weights-inception-2015-12-05-6726825d.pth is the same file.
ADDRESS = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
DIM = 2048


class Inception:
    """uint8 RGB [B, 3, H, W] of any side -> features [B, 2048] after the last pooling, logits [B, 1008] without their bias."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self._network(images)
        return features, logits


def weights_path() -> Path:
    """Where the weights are looked for: ``$UMD_BENCH_INCEPTION``, else the user's cache."""
    stated = os.environ.get(VARIABLE)
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "umd-bench" / "weights" / FILE


def load_inception(device: torch.device) -> Inception:
    """The network with its published weights on ``device``; :class:`UserError` where they are missing or others."""
    path = weights_path()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"the weights of inception-v3-compat cannot be read from {path} ({error.strerror}): "
            f"download {ADDRESS} and put it there, or name its place in ${VARIABLE}"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{path} is not the Inception-v3 that FID is defined by (SHA-256 {found[:8]}, expected {SHA256[:8]}): "
            f"download {ADDRESS} again, or name its place in ${VARIABLE}"
        )
    return Inception(build_network(data).to(device))


def build_network(data: bytes) -> Any:
    """The network with the state dict that ``data`` holds as torch saves it; :class:`UserError` where it holds another thing.

    torch-fidelity unpickles whatever file it is given, so it is handed a copy of the tensors that a safe load has let through.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"the weights of inception-v3-compat are not tensors that torch saved ({error})") from None
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=safe)
