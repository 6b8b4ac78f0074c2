"""The representation of images under some weights (weights.py): computed once, cached below results/features, memory-mapped.

    <results>/features/<hash>.npy     float32 [N, D] and its SHA-256 (storage/rows.py)

The hash covers everything that the numbers depend on: the weights (a parent's key and the content of its snapshot, or all that
initial or supervised weights depend on), the data's digest, the split and its chosen rows, the block, the pool, t, for t >= 1
the noise process and the seed, and the environment that changes the last bits (device kind, threads, torch version). So several
probes of one parent share a file, and no file goes stale. A damaged file is computed again. The folder can be deleted at any
time. When its features and the weights trained with labels (supervised.py) grow past $UMD_BENCH_FEATURES_GB (default 20), the
least recently used ones are deleted. Features that are NaN or infinite are an error, and nothing is saved.

Shapes: N images, D features, C channels, H, W.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.probe_stage import Place, ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.batches.batches import unaugmented
from umd_bench.data.packs.pack import Pack, Split
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.families import Evaluated, position
from umd_bench.evaluation.probes.weights import Weights
from umd_bench.evaluation.storage.cache_names import cache_name, numeric_environment
from umd_bench.evaluation.storage.rows import Index, Rows, load_rows, save_rows_together

FOLDER = "features"
_VERSION = 1  # goes up when the same weights and images would give other features
_BATCH = 500
_DEFAULT_GB = 20.0
_LARGE = (".npy", ".supervised")  # files that count towards the limit


class Pixels:
    """The images of a split as features, in [-1, 1], or the means of its latents: the baseline of a representation.

    They are computed when they are read, so that memory does not grow with N.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self.shape: tuple[int, ...] = (len(split), int(np.prod(split.images.shape[-3:])))

    def __getitem__(self, rows: Any, /) -> Rows:
        features: Rows = unaugmented(self._split, rows).flatten(1).numpy()
        return features


class Representation:
    """Some ``weights`` as a probe stage reads them: features of images at a place (block, pool, t).

    Features are cached in ``folder``. The model is made only if features have to be computed. Methods take the place, by
    default the stage's own. Raises :class:`UserError` if the stage is no probe, and :class:`FieldError` for a t, block or pool
    that the model does not have.
    """

    def __init__(self, spec: StageSpec, weights: Weights, folder: Path, device: torch.device) -> None:
        stage = spec.stage
        if not isinstance(stage, ProbeStage):
            raise UserError(f"a {spec.kind} stage is no probe of a representation: expected a probe stage")
        if stage.choose is None:
            if stage.t is None or not 0 <= stage.t <= spec.noise.timesteps:
                raise FieldError("stages.probe.t", stage.t, f"expected 0..{spec.noise.timesteps}")
            spec.model.check_representation(stage.block, stage.pool, "stages.probe")
        self._spec, self._weights, self._folder, self._device = spec, weights, folder, device
        self._own = Place(stage.block, stage.pool, stage.t or 0)
        self._limit, self._empty = _limit_bytes(), weights.empty()

    @cached_property
    def model(self) -> Evaluated:
        """The model on the device."""
        return self._weights.model(self._device)

    def position(self, place: Place | None = None) -> str:
        """The block and the pool in words: ``mean of patch tokens after block 3 of 12``."""
        place = place or self._own
        return position(self._empty, block=place.block, pool=place.pool)

    def of(self, pack: Pack, split: str, rows: Index | None = None, *, place: Place | None = None) -> Rows:
        """The features, float32 [N, D], of the images ``rows`` [N] of a split (None: all); memory-mapped and read-only.

        Raises :class:`UserError` if the weights are missing, if a feature is NaN or infinite, and if the disk is full.
        """
        return self.of_each(pack, split, rows, places=[place or self._own])[0]

    def of_each(self, pack: Pack, split: str, rows: Index | None = None, *, places: Sequence[Place]) -> list[Rows]:
        """:meth:`of` at several places of one t. All that are not cached come from one forward pass."""
        index = np.arange(len(pack.split(split))) if rows is None else rows
        paths = [self._folder / f"{self.name(pack, split, rows, place=place)}.npy" for place in places]
        shape = (len(index), self._spec.model.width)
        found = [load_rows(path, shape) for path in paths]
        missing = [i for i, features in enumerate(found) if features is None]
        if missing:
            parts = self._computed(pack, split, index, [places[i] for i in missing])
            for i, features in zip(missing, save_rows_together([paths[i] for i in missing], shape, parts), strict=True):
                found[i] = features
        with suppress(OSError):
            for path in paths:
                os.utime(path)  # marks it as recently used
            _delete_oldest(self._folder, self._limit)
        return [features for features in found if features is not None]

    @torch.inference_mode()
    def _computed(self, pack: Pack, split: str, index: Index, places: Sequence[Place]) -> Iterator[list[Rows]]:
        """The features at each of ``places``, in batches of a fixed size, so that the bits are always the same."""
        images, process, time = pack.split(split), NoiseProcess(self._spec.noise, self._device), places[0].t
        for batch in np.split(index, range(_BATCH, len(index), _BATCH)):
            x_0 = unaugmented(images, batch).to(self._device)
            t = torch.full((len(batch),), time, device=self._device)
            x_t = process.q_sample(x_0, t, self._noise(split, batch, x_0)) if time else x_0
            each = self.model.represent_each(x_t, t, [(place.block, place.pool) for place in places])
            each = [features.float().cpu() for features in each]
            if not all(features.isfinite().all() for features in each):
                raise UserError(f"the representation of the {split} split is NaN or infinite, so its weights cannot be used")
            yield [features.numpy() for features in each]

    def _noise(self, split: str, index: Index, x_0: Tensor) -> Tensor:
        """Noise that depends on the seed and the image alone, so that it is the same in every trial of one seed."""
        shape = tuple(x_0.shape[1:])
        seeds = [derive_seed(self._spec.seed, "probe/noise", split, int(i)) for i in index]
        eps = np.stack([np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in seeds])
        return torch.from_numpy(eps).to(x_0.device)

    def name(self, pack: Pack, split: str, rows: Index | None = None, *, place: Place | None = None) -> str:
        """A hash of everything that the features of these images depend on."""
        spec, t = self._spec, (place or self._own).t
        inputs: dict[str, Any] = {
            "version": _VERSION,
            "weights": self._weights.identity,
            "data": [pack.manifest.digest, split, None if rows is None else hashlib.sha256(rows.tobytes()).hexdigest()],
            "position": self.position(place),
            "t": t,
            "noise": [spec.noise.model_dump(mode="json"), spec.seed] if t else None,
            "here": [*numeric_environment(self._device), _BATCH],
        }
        return cache_name(inputs)


def _limit_bytes() -> float:
    stated = os.environ.get("UMD_BENCH_FEATURES_GB", "")
    try:
        return float(stated or _DEFAULT_GB) * 1e9
    except ValueError:
        raise UserError(f"$UMD_BENCH_FEATURES_GB = {stated!r} is not accepted: expected a number of gigabytes") from None


def _delete_oldest(folder: Path, limit: float) -> None:
    """Delete the least recently used files until the rest take at most ``limit`` bytes; a mapped file stays readable."""
    total = 0
    files = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process deletes too
            if path.suffix in _LARGE:
                files.append((path, path.stat()))
    for path, state in sorted(files, key=lambda file: file[1].st_mtime_ns, reverse=True):
        total += state.st_size
        if total > limit:
            path.unlink(missing_ok=True)
