"""The collector of cycles rests inside, and is afterwards as it was, whatever happens."""

from __future__ import annotations

import gc

import pytest

from umd_bench.config.gc_pause import uncollected


@uncollected()
def _is_on(error: Exception | None = None) -> bool:
    with uncollected():
        pass  # one within the other leaves it to the outer one
    if error is not None:
        raise error
    return gc.isenabled()


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_rests_inside_and_is_afterwards_as_it_was(on: bool) -> None:
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
