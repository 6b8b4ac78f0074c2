"""Fixtures of the tests on latents: a small VAE, and a small RGB data set with its packed latents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from data.small_vaes import SIZE, TINIES, pack_small, write_vae

from umd_bench.config.trial.data import DataConfig
from umd_bench.data.datasets import DATASETS
from umd_bench.data.open_data import open_data
from umd_bench.data.packs.pack import Pack


@pytest.fixture(scope="session")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random VAE with factor 2 and 4 channels."""
    return write_vae(tmp_path_factory.mktemp("vaes") / "vae")


@pytest.fixture
def tinies() -> Iterator[None]:
    """The data set ``tinies`` is a built-in one during the test."""
    DATASETS["tinies"] = TINIES
    yield
    del DATASETS["tinies"]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, vae: Path) -> Path:
    """A data root with the images of ``tinies`` and their latents."""
    DATASETS["tinies"] = TINIES
    root = tmp_path_factory.mktemp("root")
    pack_small(root, vae)
    del DATASETS["tinies"]
    return root


@pytest.fixture
def packed(root: Path, tinies: None) -> Pack:
    """The pack of the latents of ``tinies``."""
    return open_data(DataConfig(name="tinies", size=SIZE, vae="vae-f2c4"), root)
