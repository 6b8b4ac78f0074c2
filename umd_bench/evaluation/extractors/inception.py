"""The Inception-v3 that defines the Fréchet inception distance (Heusel et al., arXiv 1706.08500), through torch-fidelity.

The network is the TensorFlow graph of 2015-12-05 with its own resizing to 299 pixels. Its weights are one public file, which is
looked for in three places and checked by SHA-256. Only ``umd-bench extractor fetch`` downloads it.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import INCEPTION, RGB, Extractor, ExtractorFacts, Features, in_chunks
from umd_bench.evaluation.extractors.weight_files import MissingWeightsError, Published, weights_folder

if TYPE_CHECKING:  # only building the network imports torch
    import torch
    from torch import Tensor

VARIABLE = "UMD_BENCH_INCEPTION"
FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# pytorch-fid publishes the file here. torch-fidelity publishes the same file under another name, in the folder of torch's hub.
ADDRESS = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
FIDELITY_FILE = "weights-inception-2015-12-05-6726825d.pth"
# ADM's evaluator (Dhariwal and Nichol, arXiv 2105.05233) takes sFID from the first 7 channels of the graph's
# ``mixed_6/conv:0``. This node is the last of the 1x1 branch of ``mixed_6``, after batch normalisation and ReLU.
# The graph names its blocks ``mixed``, ``mixed_1`` ..., so ``mixed_6`` is the seventh, torch-fidelity's ``Mixed_6d``.
_SPATIAL_CHANNELS, _SPATIAL_SIDE = 7, 17
FACTS = ExtractorFacts(
    name=INCEPTION,
    data=None,
    shape=RGB,
    dim=2048,
    spatial_dim=_SPATIAL_SIDE**2 * _SPATIAL_CHANNELS,
    has_logits=True,
    resize="bilinear to 299 px as TensorFlow 1 does it, without antialiasing",
    licence="Apache-2.0",
)


class Inception:
    """uint8 RGB [B, 3, H, W] of any side -> features after the last pooling, logits without their bias, spatial features.

    Shapes [B, 2048], [B, 1008] and, with ``spatial``, [B, 2023]: 17 x 17 positions with 7 channels. The channel index runs
    fastest, as in the TensorFlow graph, so that published spatial statistics fit.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._branch: Tensor | None = None
        network.Mixed_6d.branch1x1.register_forward_hook(self._save_branch)

    def __call__(self, images: Tensor, *, spatial: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        pooled, logits = self._network(images)
        branch, self._branch = self._branch, None
        assert branch is not None  # the hook has run
        if not spatial:
            return pooled, logits, None
        return pooled, logits, branch[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)

    def _save_branch(self, module: Any, inputs: Any, output: Tensor) -> None:
        self._branch = output


def fetched_path() -> Path:
    """The path where ``umd-bench extractor fetch`` saves the weights."""
    return weights_folder() / FILE


def published() -> Published:
    """The file that can be downloaded."""
    return Published(ADDRESS, fetched_path(), SHA256)


def weight_paths() -> list[Path]:
    """The paths to look for weights at, in order.

    If ``$UMD_BENCH_INCEPTION`` names a file, only that one. Otherwise the fetched file, then torch-fidelity's own download.
    """
    stated = os.environ.get(VARIABLE)
    if stated:
        return [Path(stated).expanduser()]
    return [fetched_path(), _hub_folder() / "checkpoints" / FIDELITY_FILE]


def _hub_folder() -> Path:
    """``torch.hub.get_dir()``, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser() / "hub"


def find_weights() -> bytes:
    """The published weights, from the first path that exists.

    Raises :class:`MissingWeightsError` if none exists, and :class:`UserError` if the file has another SHA-256: a wrong file
    never counts as missing.
    """
    path = next((path for path in weight_paths() if path.exists()), None)
    if path is None:
        raise MissingWeightsError(INCEPTION, f"in {' or '.join(map(str, weight_paths()))}", _how_to_get())
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the weights of {INCEPTION} cannot be read from {path} ({error.strerror}): {_how_to_get()}") from None
    actual = hashlib.sha256(data).hexdigest()
    if actual != SHA256:
        raise UserError(
            f"{path} is not the Inception-v3 that FID is defined by (SHA-256 {actual[:8]}, expected {SHA256[:8]}): "
            f"remove it, then {_how_to_get()}"
        )
    return data


def hash_weights() -> str:
    """The SHA-256 of the weights, in hex. Raises as :func:`find_weights`."""
    find_weights()
    return SHA256


def _how_to_get() -> str:
    return (
        f"name the file in ${VARIABLE}, or run `umd-bench extractor fetch {INCEPTION}`, which downloads {ADDRESS} "
        f"to {fetched_path()}, or put torch-fidelity's {FIDELITY_FILE} into $TORCH_HOME/hub/checkpoints"
    )


def load_inception(device: torch.device) -> Extractor:
    """The extractor with its published weights on ``device``. Raises :class:`UserError` as :func:`find_weights` does."""
    network = Inception(build_network(find_weights()).to(device))
    return Extractor(
        **asdict(FACTS),
        hash=SHA256,
        device=device,
        network=in_chunks(lambda images, spatial: Features(*network(images, spatial=spatial))),
    )


def build_network(data: bytes) -> Any:
    """The network with the state dict that torch saved in ``data``. Raises :class:`UserError` if ``data`` is anything else.

    torch-fidelity unpickles any file, so it gets a copy of the tensors that a safe load has accepted.
    """
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"the weights of {INCEPTION} are not tensors that torch saved ({error})") from None
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    return FeatureExtractorInceptionV3(INCEPTION, ["2048", "logits_unbiased"], feature_extractor_weights_path=safe)
