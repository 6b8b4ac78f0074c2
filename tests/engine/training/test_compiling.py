"""Compiled code is cached for the next process, runs as CUDA graphs on a GPU, and leaves memory when its stage ends."""

from __future__ import annotations

import os
import platform
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit

from umd_bench.config.errors import UserError
from umd_bench.engine.training.compiling import cache_in, compile_cache, compile_model, compiled, own_graphs

CPU = torch.device("cpu")
VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and no configured cache folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE)
    return tmp_path


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_the_cache_is_in_the_users_folder_by_torch_version_and_processor(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = compile_cache()
    assert folder.parent == home / ".cache" / "umd-bench" / "compiled"
    assert torch.__version__ in folder.name
    monkeypatch.setattr(platform, "machine", lambda: "another")
    assert compile_cache() != folder


def test_inductor_gets_a_folder_that_no_other_user_can_read(home: Path) -> None:
    compiled(double, CPU)
    folder = Path(os.environ[VARIABLE])
    assert folder.is_relative_to(home)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_configured_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "stated"))
    compiled(double, CPU)
    assert os.environ[VARIABLE] == str(tmp_path / "stated")
    with cache_in(tmp_path / "other"):
        assert compile_cache() == tmp_path / "other"
    assert compile_cache() == tmp_path / "stated"


def test_a_folder_that_cannot_be_created_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "folder"))
    with pytest.raises(UserError, match=f"{VARIABLE}: .*cannot be written"):
        compiled(double, CPU)


@pytest.mark.parametrize(("device", "mode"), [("cpu", None), ("cuda", "reduce-overhead")])
def test_a_function_is_one_graph_of_static_shapes_and_on_a_gpu_a_cuda_graph(
    device: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options_seen: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: options_seen.append(options) or function)
    compiled(double, torch.device(device))
    compile_model(torch.nn.Linear(2, 2), torch.device(device))
    assert options_seen == [{"dynamic": False, "fullgraph": True, "mode": mode}] * 2


@pytest.mark.slow
def test_a_process_can_run_more_compiled_stages_than_torch_allows_versions_of_a_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 4)  # timm's optimisers, once imported, raise it to a million
    sides = range(2, 8)
    for side in sides:
        with own_graphs():
            compiled(double, CPU)(torch.zeros(side))
    # All shapes within one own_graphs() exceed the limit.
    with own_graphs(), pytest.raises(FailOnRecompileLimitHit):
        list(map(compiled(double, CPU), map(torch.zeros, sides)))
