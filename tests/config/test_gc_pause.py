"""The cyclic collector is disabled inside the block and restored afterwards, also after an error."""

from __future__ import annotations

import gc

import pytest

from umd_bench.config.gc_pause import gc_paused


@gc_paused()
def _is_on(error: Exception | None = None) -> bool:
    with gc_paused():
        pass  # a nested block leaves the state to the outer one
    if error is not None:
        raise error
    return gc.isenabled()


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_disabled_inside_and_restored_afterwards(on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        assert not _is_on()
        assert gc.isenabled() is on
        with pytest.raises(KeyError):
            _is_on(KeyError("x"))
        assert gc.isenabled() is on
    finally:
        (gc.enable if before else gc.disable)()
