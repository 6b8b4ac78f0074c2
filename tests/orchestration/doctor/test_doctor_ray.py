"""The doctor's check of Ray always ends, and reports a Ray that cannot start with a remedy."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from umd_bench.orchestration.doctor import ray
from umd_bench.orchestration.doctor.finding import Finding
from umd_bench.orchestration.doctor.ray import check_ray


def ray_finding(monkeypatch: pytest.MonkeyPatch, script: str, seconds: float = 20) -> Finding:
    monkeypatch.setattr(ray, "_TRY", script)
    return list(check_ray(seconds=seconds))[-1]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("OSError: AF_UNIX path length cannot exceed 107 bytes", "TMPDIR"),
        ("Failed to create plasma store: No space left on device", "shm-size"),
        ("Authentication token not found", "auth_token"),
        ("Version mismatch: the cluster was started with", "force-reinstall"),
        ("Failed to connect to GCS at 127.0.0.1:2", "loopback"),
        ("something else", "inline"),
    ],
)
def test_a_failure_is_reported_with_its_reason_and_remedy(error: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = ray_finding(monkeypatch, f"import sys; sys.exit({error!r})")
    assert (finding.level, error in finding.text) == ("fail", True)
    assert remedy in finding.remedy


def test_a_ray_that_hangs_fails_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = ray_finding(monkeypatch, "import time; time.sleep(100)", seconds=0.5)
    assert (finding.level, finding.text) == ("fail", "a local Ray did not start within 0 s")


def test_a_temporary_folder_that_is_too_deep_for_sockets_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.setattr(ray, "_TRY", "print('2 answered')")
    assert next(check_ray()).failed


def test_an_address_in_the_environment_is_reported_as_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "far:1")
    monkeypatch.setattr(ray, "_TRY", "print('2 answered')")
    assert ("warn", "--ray-address far:1") in [(finding.level, finding.remedy[-19:]) for finding in check_ray()]


@pytest.mark.slow
def test_a_real_ray_starts_here_despite_a_leftover_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("left by another")
    monkeypatch.setenv("HOME", str(tmp_path))
    finding = list(check_ray())[-1]
    assert not finding.failed
    assert re.search(r"a local Ray [\d.]+ starts, answers and ends", finding.text)
