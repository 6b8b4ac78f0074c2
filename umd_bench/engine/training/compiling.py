"""The one place where torch.compile is switched on: how, and where its work is kept.

Shapes never change (``dynamic=False``). On a GPU what is compiled is recorded and replayed as CUDA graphs as well
(``mode="reduce-overhead"``): a replay overwrites what the one before gave, so whoever calls copies what is to be kept.
Compiling takes minutes, and every process does it again unless it finds the work of another in one folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from umd_bench.machine import cpu_lines
from umd_bench.store.files import require_writable

F = TypeVar("F", bound=Callable[..., Any])
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # torch's own: where inductor looks, and Triton's kernels below it


def compile_cache() -> Path:
    """Where compiled work is kept: $TORCHINDUCTOR_CACHE_DIR, else a folder of this torch and processor in the user's cache.

    Left to itself torch takes ``/tmp/torchinductor_<user>``: gone after a restart, another one on each node, and a name that
    somebody else can take first, though what lies there is unpickled. Files are named by their content's hash and put in place
    whole, so processes share the folder, ranks and jobs on several nodes too. Compiled C++ is for the processor it was compiled
    on, which its hash does not say: nodes that share a home folder and are of different kinds have a folder each.
    """
    stated = os.environ.get(_VARIABLE)
    if stated:
        return Path(stated).expanduser()
    return Path.home() / ".cache" / "umd-bench" / "compiled" / f"torch-{torch.__version__}-{_processor()}"


def compiled(function: F, device: torch.device) -> F:
    """``function`` of tensors on ``device``, compiled as one graph when it is first called, with the work kept.

    A graph for each set of shapes, types, precision and plain numbers among its arguments. What would break the graph in two
    raises, since no CUDA graph could be made of it.
    """
    _keep_work()
    return cast("F", torch.compile(function, dynamic=False, fullgraph=True, mode=_mode(device)))


def compile_model(model: nn.Module, device: torch.device) -> None:
    """As :func:`compiled` for a model's forward pass, in place: names of parameters stay."""
    _keep_work()
    model.compile(dynamic=False, fullgraph=True, mode=_mode(device))


@contextmanager
def own_graphs() -> Iterator[None]:
    """What is compiled within is forgotten afterwards, but for what is on disk.

    A process that runs one stage after another would reach torch's limit on versions of one function, and would keep the
    memory of CUDA graphs that nothing replays any more.
    """
    try:
        yield
    finally:
        torch.compiler.reset()


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Keep compiled work in ``folder`` meanwhile."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def _mode(device: torch.device) -> str | None:
    return "reduce-overhead" if device.type == "cuda" else None


def _keep_work() -> None:
    """Tell inductor its folder; it reads the variable whenever it looks.

    Where it is made here, it is nobody else's to read or write. Raises :class:`UserError` where nothing can be written there.
    """
    folder = compile_cache()
    if not folder.exists():
        with suppress(OSError):  # said below
            folder.mkdir(mode=0o700, parents=True)
    require_writable(folder, f"{_VARIABLE}:")
    os.environ[_VARIABLE] = str(folder)


def _processor() -> str:
    """Eight hex digits of what decides which instructions a compiler may use: architecture, processor, its flags."""
    facts = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    lines = cpu_lines()
    if lines:
        facts += [next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags", "Features")]
    else:
        facts.append(platform.processor())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
