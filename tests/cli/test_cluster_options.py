"""Options of jobs on every verb that runs stages: what cannot be is one sentence, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.cli import app
from umd_bench.config.errors import UserError


@pytest.mark.parametrize(
    "verb", [["sweep", "small.yaml"], ["train", "umd", "--tier", "digits"], ["evaluate", "0123456789abcdef"]]
)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--on", "inline", "--slurm", "time=5m"], "--slurm is for jobs: expected --on slurm"),
        (["--on", "inline", "--detach"], "--detach leaves the work to a cluster: expected --on slurm"),
        (["--on", "slurm", "--cluster", "nowhere"], "there is no clusters/nowhere.yaml"),
        (["--on", "slurm", "--slurm", "time=soon"], "expected a duration"),
        (["--on", "slrum"], "expected one of inline, ray, slurm"),
    ],
)
def test_what_jobs_cannot_be_asked_for_is_refused_before_anything_is_written(
    verb: list[str], options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        app([*verb, *options], standalone_mode=False)
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]
