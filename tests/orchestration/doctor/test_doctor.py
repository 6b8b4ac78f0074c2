"""The doctor reports that this machine can run the benchmark; an unusable tracking store is only a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.text import Text

from umd_bench.config.errors import UserError
from umd_bench.orchestration.doctor import doctor
from umd_bench.orchestration.doctor.doctor import DoctorOptions, examine
from umd_bench.orchestration.doctor.finding import Finding
from umd_bench.tracking.projector import TrackingError, check_store


def test_an_unusable_tracking_store_is_only_a_warning(tmp_path: Path) -> None:
    assert "the first sweep makes it" in check_store(None, tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").write_text("this is no database")
    with pytest.raises(TrackingError, match="not a database"):
        check_store(None, tmp_path)
    assert check_store("off", tmp_path) == "MLflow: off"

    def wrong() -> str:
        raise UserError("MLflow is away")

    [finding] = doctor._tracking(wrong)
    assert (finding.level, finding.text) == ("warn", "MLflow is away")


@pytest.mark.slow
def test_this_machine_can_run_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no-commands"))
    findings = list(examine(tmp_path / "results", tmp_path / "data", DoctorOptions()))
    assert [finding.text for finding in findings if finding.level == "fail"] == []
    [slurm] = [finding for finding in findings if "there is no sbatch on this machine" in finding.text]
    assert slurm.level == "pass"
    assert not any(finding.text.startswith("quota") for finding in findings)


def test_brackets_in_a_finding_are_not_read_as_markup() -> None:
    assert Text.from_markup(Finding("warn", "nodes 127.0.0.[red]x").line()).plain == "warn  nodes 127.0.0.[red]x"
