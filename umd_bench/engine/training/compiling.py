"""The only module that calls torch.compile. It also chooses the folder of the cache.

Shapes never change (``dynamic=False``). On a GPU the compiled code is also recorded and replayed as CUDA graphs
(``mode="reduce-overhead"``). A replay overwrites the previous replay's outputs, so the caller must copy outputs that it keeps.
Compiling takes minutes, so processes share one cache folder.
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
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # torch's own: the folder of inductor's cache, with Triton's kernels below it


def compile_cache() -> Path:
    """The cache of compiled code: $TORCHINDUCTOR_CACHE_DIR, or a folder for this torch and processor in the user's cache.

    torch's default, ``/tmp/torchinductor_<user>``, is lost at a restart and different on each node. It is also unsafe, because
    another user can create that folder first, and its content is unpickled. Files are named by a hash and written atomically,
    so processes can share the folder, including ranks and jobs on several nodes. Compiled C++ fits only the processor type that
    it was compiled on, which the hash does not include. So nodes of different types that share a home folder get different
    folders.
    """
    configured = os.environ.get(_VARIABLE)
    if configured:
        return Path(configured).expanduser()
    return Path.home() / ".cache" / "umd-bench" / "compiled" / f"torch-{torch.__version__}-{_processor()}"


def compiled(function: F, device: torch.device) -> F:
    """``function`` of tensors on ``device``, compiled as one graph at its first call.

    It is compiled again for each set of shapes, dtypes, precision and plain numbers among its arguments. A graph break raises
    an error, since broken graphs cannot become one CUDA graph. Raises :class:`UserError` if the cache cannot be written.
    """
    _use_cache()
    return cast("F", torch.compile(function, dynamic=False, fullgraph=True, mode=_mode(device)))


def compile_model(model: nn.Module, device: torch.device) -> None:
    """As :func:`compiled`, for a model's forward pass. The model is compiled in place, so its parameters keep their names."""
    _use_cache()
    model.compile(dynamic=False, fullgraph=True, mode=_mode(device))


@contextmanager
def own_graphs() -> Iterator[None]:
    """At the end of this block, free the code that was compiled in it; the code stays in the cache on disk.

    Otherwise a process that runs stages one after another would reach torch's limit on versions of one function, and would
    keep the memory of CUDA graphs that are never replayed again.
    """
    try:
        yield
    finally:
        torch.compiler.reset()


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Use ``folder`` as the cache in this block."""
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


def _use_cache() -> None:
    """Create the cache folder, private to this user, and pass it to inductor, which reads the variable at each access.

    Raises :class:`UserError` if the folder cannot be written.
    """
    folder = compile_cache()
    if not folder.exists():
        with suppress(OSError):  # reported below
            folder.mkdir(mode=0o700, parents=True)
    require_writable(folder, f"{_VARIABLE}:")
    os.environ[_VARIABLE] = str(folder)


def _processor() -> str:
    """Eight hex digits of a hash of the processor: its architecture, name and instruction set extensions."""
    facts = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    lines = cpu_lines()
    if lines:
        facts += [next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags", "Features")]
    else:
        facts.append(platform.processor())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
