"""The device that a stage computes on, and its name."""

from __future__ import annotations

import pytest
import torch

from umd_bench.config.errors import FieldError
from umd_bench.engine.device import device_name, pick_device
from umd_bench.machine import cpu_name


def test_auto_takes_cuda_if_there_is_one_and_cuda_without_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(FieldError, match=r"resources\.device = 'cuda' is not accepted"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [pick_device(name).type for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]


def test_the_name_of_the_cpu_is_the_processors() -> None:
    assert device_name("cpu") == cpu_name()
