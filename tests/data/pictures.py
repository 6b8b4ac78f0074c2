"""Small generated pictures as image files, in class folders, and in tar files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(seed: int, height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    """Smooth colours uint8 [height, width, 3], which JPEG hardly changes."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    content = io.BytesIO()
    image.save(content, kind, **({"quality": 95} | options if kind == "JPEG" else options))
    return content.getvalue()


def jpeg(seed: int, height: int = 20, width: int = 30) -> bytes:
    return encoded(Image.fromarray(pixels(seed, height, width)))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def class_folders(root: Path, classes: dict[str, int], ending: str = "jpg", start: int = 0) -> dict[str, bytes]:
    """Write ``root/<class>/<i>.<ending>``, ``classes[class]`` pictures for each class; return the bytes of each by name."""
    files = {}
    for name, n in classes.items():
        for i in range(n):
            files[f"{name}/{name}_{i}.{ending}"] = jpeg(start + len(files))
    for name, content in files.items():
        write(root / name, content)
    return files


def tar_of(files: dict[str, bytes]) -> bytes:
    """The bytes of a tar file with these members, in order."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()
