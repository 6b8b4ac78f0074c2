"""Other projects' files are read as plain tensors or refused with a one-line error; no code in them runs."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.engine.published.files import read_weight_file

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(3)}


def written(path: Path, state: dict[str, Tensor] = STATE) -> Path:
    match path.suffix:
        case ".npz":
            np.savez(path, **{name: value.numpy() for name, value in state.items()})
        case ".safetensors":
            safetensors.torch.save_file(state, path)
        case _:
            torch.save({"model": state} if path.suffix == ".pth" else state, path)
    return path


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.pth", "w.pt", "w.bin"])
def test_every_format_gives_the_same_tensors_and_the_files_hash(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    read = read_weight_file(path)
    assert read.tensors.keys() == STATE.keys()
    assert all(torch.equal(read.tensors[k], value) for k, value in STATE.items())
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_weight_file(path, sha256=read.sha256).sha256 == read.sha256


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.pth", "w.pt"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match="is not an intact"):
        read_weight_file(path)


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["w.pth", "w.npz", "w.bin"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, name: str) -> None:
    path, sign = tmp_path / name, tmp_path / "it_ran"
    match name:
        case "w.pth":
            torch.save({"model": {**STATE, "x": Touch(sign)}}, path)
        case "w.npz":
            np.savez(path, x=np.array([Touch(sign)], dtype=object))
        case _:
            path.write_bytes(pickle.dumps(Touch(sign)))
    with pytest.raises(UserError, match="nothing else is read"):
        read_weight_file(path)
    assert not sign.exists()


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"is another file: its SHA-256 is .*, expected {'0' * 64}"):
        read_weight_file(written(tmp_path / "w.npz"), sha256="0" * 64)


def test_an_unknown_ending_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected one of \.bin, \.npz, \.pt, \.pth, \.safetensors"):
        read_weight_file(tmp_path / "w.h5")
    with pytest.raises(UserError, match="cannot be read"):
        read_weight_file(tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([1.0, float("nan")]), "'x' holds NaN or infinite values"),
        (torch.tensor([1, 2]), "'x' has the type torch.int64"),
        (torch.ones(2, dtype=torch.float64), "'x' has the type torch.float64"),
        ({"deeper": torch.ones(2)}, "'x' is a dict: expected a tensor"),
    ],
)
def test_the_error_names_an_entry_that_is_not_a_weight(tmp_path: Path, value: object, message: str) -> None:
    torch.save({**STATE, "x": value}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        read_weight_file(tmp_path / "w.pth")


def test_the_error_names_a_type_that_torch_does_not_know(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3, dtype="V2"))  # JAX's bfloat16 in an .npz
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as file:
        file.writestr("x.npy", buffer.getvalue())
    with pytest.raises(UserError, match=r"'x' has the type \|V2: expected float32"):
        read_weight_file(tmp_path / "w.npz")


def test_half_precision_is_widened_exactly(tmp_path: Path) -> None:
    value = torch.randn(50, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.save({"x": value}, tmp_path / "w.pth")
    read = read_weight_file(tmp_path / "w.pth").tensors["x"]
    assert read.dtype == torch.float32
    assert torch.equal(read.bfloat16(), value)


def test_tensors_that_share_memory_in_the_file_are_copied(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    torch.save({"x": whole[:4], "y": whole[2:]}, tmp_path / "w.pth")
    tensors = read_weight_file(tmp_path / "w.pth").tensors
    safetensors.torch.save(tensors)
    assert torch.equal(tensors["y"], whole[2:])
