"""The facts of this machine, read from Linux or, on other systems, from Python."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from umd_bench import machine


def test_usable_cores_follow_the_affinity_or_are_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert machine.usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert machine.usable_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [
        (
            "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nflags\t\t: fpu avx2\n\nflags\t\t: other\n",
            "A CPU @ 3 GHz",
            {"fpu", "avx2"},
        ),
        ("processor\t: 0\nFeatures\t: fp asimd sve\n", platform.machine(), {"fp", "asimd", "sve"}),
    ],
)
def test_name_and_flags_come_from_the_first_processor(
    text: str, name: str, flags: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_lines", lambda: tuple(text.splitlines()))
    assert (machine.cpu_name(), machine.cpu_flags()) == (name, flags)


def test_without_linuxs_file_the_name_is_pythons_and_there_are_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    machine.cpu_lines.cache_clear()
    monkeypatch.setattr(Path, "read_text", missing)
    try:
        assert machine.cpu_lines() == ()
        assert (machine.cpu_name(), machine.cpu_flags()) == (platform.processor(), frozenset())
    finally:
        machine.cpu_lines.cache_clear()
