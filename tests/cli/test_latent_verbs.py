"""`data pack --vae`: pictures and a VAE become two packs that verify together; a mistake gives a one-line error."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from data.small_vaes import write_vae
from PIL import Image

from umd_bench import cli


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``pictures`` of two classes in two splits, and a ``vae``."""
    here = tmp_path_factory.mktemp("here")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (here / "pictures" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(here / "pictures" / split / name / f"{i}.png")
    write_vae(here / "vae")
    return here


def run(monkeypatch: pytest.MonkeyPatch, here: Path, *arguments: str) -> int:
    """The exit code of ``umd-bench data ...`` in the folder ``here``, whose subfolder ``root`` is the data root."""
    monkeypatch.chdir(here)
    monkeypatch.setenv("UMD_BENCH_DATA", str(here / "root"))
    monkeypatch.setattr(sys, "argv", ["umd-bench", "data", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


PACK = ("pack", "pets2", "--size", "16", "--device", "cpu")


@pytest.mark.slow
def test_pictures_become_images_and_latents_that_are_verified_together(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, here, *PACK, "--root", "pictures", "--workers", "1", "--vae", "vae") == 0
    assert {path.name for path in (here / "root").iterdir()} == {"pets2-16-v2.2", "pets2-16-vae-f2c4-v2.2"}
    capsys.readouterr()
    assert run(monkeypatch, here, "verify", "pets2", "--size", "16") == 0
    assert capsys.readouterr().out.count("every file agrees with its checksum") == 2
    # Once the images are packed, latents need no folder of pictures.
    assert run(monkeypatch, here, *PACK, "--vae", "vae", "--vae-name", "bf16-f2c4", "--vae-precision", "bf16") == 0
    assert (here / "root" / "pets2-16-bf16-f2c4-v2.2").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vae", "nowhere"), "there is no such folder, and Hugging Face's cache does not have"),
        (("--vae", "pictures"), "is not the folder of a VAE: it has no config.json"),
        (("--vae", "vae", "--size", "15"), "expected a multiple of 2"),
        (("--vae", "vae", "--vae-name", "x-f8c4"), "divides by 2"),
        (("--vae", "vae", "--vae-precision", "fp16"), "expected one of bf16, fp32"),
        (("--vae", "vae", "--device", "tpu"), "expected one of auto, cpu, cuda"),
    ],
)
def test_a_mistake_gives_a_one_line_error_before_any_picture_is_read(
    arguments: tuple[str, ...], message: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, here, "pack", "fresh", "--size", "16", "--root", "pictures", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list((here / "root").glob("fresh*"))
