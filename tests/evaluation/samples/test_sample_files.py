"""Files of samples: written samples are read back, by numpy too, and other files give a one-line error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.samples.sample_files import SampleFile, SampleWriter, open_samples


def images(n: int = 7, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (n, channels, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def read(file: SampleFile, channels: int = 3, size: int = 3) -> Tensor:
    batches = list(file.batches(channels, size))
    assert [start for start, _ in batches] == list(range(0, file.n, size))
    return torch.cat([batch for _, batch in batches])


@pytest.mark.parametrize("channels", [1, 3])
def test_written_samples_are_read_back_and_have_adms_format(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "s.npz"
    with SampleWriter(path, 7, torch.arange(7)) as writer:
        for part in images(channels=channels).split(4):
            writer.add(part)
    with np.load(path) as file:
        assert (file["arr_0"].shape, file["arr_0"].dtype) == ((7, 6, 6, 3), np.uint8)
        assert file["arr_1"].tolist() == list(range(7))
    assert torch.equal(read(open_samples(path), channels), images(channels=channels))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpys_own_files_are_read(tmp_path: Path, save: object) -> None:
    array = images().permute(0, 2, 3, 1).numpy()
    save(tmp_path / "s.npz", array)  # type: ignore[operator]
    np.save(tmp_path / "s.npy", np.ascontiguousarray(array))
    for name in ("s.npz", "s.npy"):
        file = open_samples(tmp_path / name)
        assert (file.n, file.height, file.width, file.channels) == (7, 6, 6, 3)
        assert torch.equal(read(file), images())


def test_a_folder_of_pictures_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for i, image in enumerate(images()):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i:03d}.png")
    assert torch.equal(read(open_samples(tmp_path)), images())


def test_an_interrupted_writer_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    with suppress(KeyboardInterrupt), SampleWriter(path, 7) as writer:
        writer.add(images(7))
        raise KeyboardInterrupt
    assert not path.exists()
    with SampleWriter(path, 7) as writer:
        writer.add(images(4))
    assert not list(tmp_path.iterdir())


def refused(path: Path, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read(open_samples(path), 1)


def test_files_without_samples_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "floats.npz", np.zeros((3, 6, 6, 3)))
    np.savez(tmp_path / "chw.npz", np.zeros((3, 3, 6, 6), np.uint8))
    np.savez(tmp_path / "named.npz", images=np.zeros((3, 6, 6, 3), np.uint8))
    np.save(tmp_path / "colour.npy", images().permute(0, 2, 3, 1).contiguous().numpy())
    whole = (tmp_path / "colour.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-5])
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.npz").write_text("no archive")
    refused(tmp_path / "none.npz", "cannot be read")
    refused(tmp_path / "floats.npz", r"holds float64 \[3, 6, 6, 3\]: expected uint8")
    refused(tmp_path / "chw.npz", r"uint8 \[3, 3, 6, 6\]: expected uint8 \[N, H, W, 3\]")
    refused(tmp_path / "named.npz", "no .npz with an arr_0")
    refused(tmp_path / "text.npz", "no .npz with an arr_0")
    refused(tmp_path / "text.npy", "no array that numpy saved")
    refused(tmp_path / "colour.npy", r"samples 0\.\.2 are colour images: expected grey images")
    refused(tmp_path / "a.jpg", "expected a folder of PNGs")
    with pytest.raises(UserError, match=r"ends within samples 6\.\.6 of the 7"):
        read(open_samples(tmp_path / "short.npy"))


def test_unreadable_pictures_and_pictures_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    refused(tmp_path, "holds no PNG files")
    Image.new("RGB", (6, 6)).save(tmp_path / "a.png")
    Image.new("RGB", (7, 6)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png has 6x7x3, others 6x6x3"):
        read(open_samples(tmp_path))
    Image.new("RGBA", (6, 6)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png is of mode RGBA"):
        read(open_samples(tmp_path))
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image"):
        open_samples(tmp_path)
