"""Pictures of every format become a square in RGB, and a broken one gives a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data.pictures import encoded, jpeg, pixels
from numpy.typing import NDArray
from PIL import Image

from umd_bench.config.errors import UserError
from umd_bench.data.readers.pictures import RESIZES, FileRange, decode

SIZE = 16
RGB = Image.fromarray(pixels(0, SIZE, SIZE))


def seen(content: bytes, size: int = SIZE, resize: str = "antialiased") -> NDArray[np.uint8]:
    found = decode(content, size, resize)
    assert isinstance(found, np.ndarray), found
    assert found.shape == (3, size, size)
    assert found.dtype == np.uint8
    return found


def channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("resize", RESIZES)
def test_an_image_of_the_right_size_is_unchanged(resize: str) -> None:
    assert np.array_equal(seen(encoded(RGB, "PNG"), resize=resize), channels_first(RGB))


def test_grey_is_repeated_in_each_channel() -> None:
    grey = RGB.convert("L")
    assert np.array_equal(seen(encoded(grey, "PNG")), np.repeat(np.asarray(grey)[None], 3, 0))


def test_palette_colours_are_converted() -> None:
    palette = RGB.quantize(200)
    assert np.array_equal(seen(encoded(palette, "PNG")), channels_first(palette))


def test_one_bit_is_black_and_white() -> None:
    bits = RGB.convert("1")
    assert set(np.unique(seen(encoded(bits, "PNG")))) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_become_white(kind: str) -> None:
    image = RGB.convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(SIZE) < 8, 0, 255).astype(np.uint8)[None].repeat(SIZE, 0)))
    found = seen(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert (found[:, :, :8] == 255).all()
    assert np.array_equal(found[:, :, 8:], channels_first(RGB)[:, :, 8:])


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    palette = RGB.quantize(4)
    first = np.asarray(palette) == 0
    found = seen(encoded(palette, "PNG", transparency=0))
    assert (found[:, first] == 255).all()
    assert np.array_equal(found[:, ~first], channels_first(palette)[:, ~first])


def test_grey_with_transparency_is_laid_over_white() -> None:
    half = Image.merge("LA", (Image.new("L", (SIZE, SIZE), 0), Image.new("L", (SIZE, SIZE), 128)))
    assert set(np.unique(seen(encoded(half, "PNG")))) == {127}


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    deep = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    found = seen(encoded(Image.fromarray(deep), "PNG"))
    assert np.array_equal(found[0], np.rint(deep / 257).astype(np.uint8))
    assert np.array_equal(found[0], found[2])


def test_cmyk_becomes_rgb() -> None:
    found = seen(encoded(RGB.convert("CMYK")))
    assert np.abs(found.astype(int) - channels_first(RGB)).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_the_exif_data_is_applied(orientation: int) -> None:
    corner = np.zeros((32, 32, 3), np.uint8)
    corner[:16, :16, 0] = 255  # red, top left
    corner[:16, 16:, 1] = 255  # green, top right
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = Image.fromarray(corner)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = stored if undo is None else stored.transpose(undo)
    found = seen(encoded(turned, exif=exif))
    assert found[0, 2, 2] > 200
    assert found[1, 2, 13] > 200


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("height", "width"), [(16, 40), (40, 16), (33, 47), (7, 9)])
def test_the_centre_square_is_cut_out(resize: str, height: int, width: int) -> None:
    """A ramp along the long side is cut equally at both ends, so its middle stays in the middle."""
    ramp = np.zeros((height, width, 3), np.uint8)
    along = np.linspace(0, 255, max(height, width)).astype(np.uint8)
    ramp[:] = along[None, :, None] if width > height else along[:, None, None]
    found = seen(encoded(Image.fromarray(ramp), "PNG"), 8, resize).astype(float)
    values = found[0].mean(axis=0 if width > height else 1)
    share = min(height, width) / max(height, width)
    assert values.mean() == pytest.approx(127.5, abs=255 / 16)  # half a pixel
    assert values[-1] - values[0] == pytest.approx(255 * share * 7 / 8, rel=0.2)  # adm rounds to pixels


def test_antialiased_averages_pixels_that_aliased_drops() -> None:
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[:, 1::4] = 255  # a quarter is white, between the positions that are read
    content = encoded(Image.fromarray(lines), "PNG")
    for resize in ("antialiased", "adm"):
        assert np.abs(seen(content, 8, resize).astype(int) - 64).max() < 16
    assert set(np.unique(seen(content, 8, "aliased"))) == {0}


def test_aliased_is_bilinear_interpolation_without_antialiasing() -> None:
    image = pixels(3, 50, 50)
    there = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(there, size=SIZE, mode="bilinear", align_corners=False, antialias=False)[0]
    found = seen(encoded(Image.fromarray(image), "PNG"), resize="aliased")
    assert np.abs(found - expected.numpy()).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg(0)[:-200], "truncated"),
        (encoded(RGB, "PNG")[:-60], "truncated|broken|cannot identify"),
        (b"<html>not found</html>", "no image in a format that Pillow knows"),
        (b"", "it is empty"),
        (encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), "mode F"),
    ],
)
def test_the_reason_for_a_broken_picture_is_one_line(content: bytes, reason: str) -> None:
    found = decode(content, SIZE, "antialiased")
    assert isinstance(found, str)
    assert "\n" not in found
    assert any(part in found for part in reason.split("|"))


def test_a_range_of_a_file_is_read_and_a_missing_file_is_an_error(tmp_path: Path) -> None:
    content = encoded(RGB, "PNG")
    (tmp_path / "x").write_bytes(b"before" + content + b"after")
    found = decode(FileRange(str(tmp_path / "x"), 6, len(content)), SIZE, "antialiased")
    assert np.array_equal(found, channels_first(RGB))
    with pytest.raises(UserError, match="gone cannot be opened"):
        decode(FileRange(str(tmp_path / "gone")), SIZE, "antialiased")
