"""The check of a tier, from the command line to the card: nothing is trained here, the results are made up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from reporting.built_results import PINNED, build_sweep

from analysis.tier_card.check import check_name, check_tier, judge
from analysis.tier_card.numbers import Numbers
from analysis.tier_card.sample_gate import NoTraining
from umd_bench import cli
from umd_bench.cli.console import console
from umd_bench.config.documents.document import parse_set
from umd_bench.config.documents.presets import PRESETS
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial
from umd_bench.config.sweep.tier_card import read_card, tier_warning
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import data_root
from umd_bench.reporting.statistics.summary import summarize

ACC = "acc_100shot"
GOOD = {"umd": 0.50, "mae": 0.60, "dit": 0.40, "maskdit": 0.40}
SEEDS = "0,1"


def own_tier(folder: Path) -> Path:
    """A tier's file with the settings that the made-up results are built with, and few samples."""
    document = yaml.safe_load((PRESETS / "tiers" / "digits.yaml").read_text())
    document.pop("methods")
    for option in (*PINNED, "trial.stages.generate.n=20", "trial.stages.generate.steps=3"):
        path, value, _ = parse_set(option)
        field = document
        for name in path[:-1]:
            field = field.setdefault(name, {})
        field[path[-1]] = value
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def build(folder: Path, tier: Path, name: str, *sets: str) -> None:
    """Made-up results on digits: every method learned, and all differ clearly but dit and maskdit, which are equal."""
    digest = open_pack("digits", data_root()).manifest.digest

    def edit(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        result["data"]["digest"] = digest
        if trial.specs[stage].kind != "probe":
            return
        level = GOOD[trial.config.method] + 0.01 * trial.config.seed
        result["metrics"] |= {ACC: level, f"pixel_{ACC}": 0.2, f"untrained_{ACC}": 0.2, f"supervised_{ACC}": 0.9}

    few = ("trial.stages.generate.n=20", "trial.stages.generate.steps=3")
    build_sweep(folder, "methods", sets=(f"tier={tier}", f"name={name}", f"seeds=[{SEEDS}]", *few, *sets), edit=edit)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of ``umd-bench tier ...``."""
    monkeypatch.setattr(sys, "argv", ["umd-bench", "tier", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.slow
def test_a_check_reuses_results_writes_the_card_and_the_report_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tier, results = own_tier(tmp_path), tmp_path / "results"
    build(results, tier, "methods")
    options = ["--seeds", SEEDS, "--on", "inline", "--results", results, "--mlflow", "off"]
    assert run(monkeypatch, "check", tier, *options) == 0
    out = capsys.readouterr().out
    assert f"check_own ({tier}, unchecked): 8 trials, " in out
    card = read_card(str(tier))
    assert card.check is not None
    verdicts = {name: gate.verdict for name, gate in card.check.gates.items()}
    assert verdicts.pop("samples") == "fail"  # the made-up distances are larger than those of 20 noise images
    assert card.status == "smoke"
    assert set(verdicts) == {"headroom", "learning", "power", "agreement"}
    assert (verdicts["headroom"], verdicts["learning"]) == ("pass", "pass")
    assert card.check.seeds == (0, 1)
    assert card.check.looks["test"].samples == 8
    assert f"card: {tmp_path / 'own.card.yaml'}" in out
    first = (results / "sweeps/check_own/table.md").read_text().splitlines()[0]
    assert first == f"**{tier_warning(str(tier))}**"
    assert first.startswith("**Smoke tier")

    assert run(monkeypatch, "show", tier) == 0
    shown = capsys.readouterr().out
    assert "headroom: pass" in shown
    assert "trained with labels" in shown

    monkeypatch.setattr(console, "width", 80)
    assert run(monkeypatch, "show", tier) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown, "on a narrow terminal words are folded, not cut off"
    assert "judged" in shown


@pytest.mark.slow
def test_an_incomplete_sweep_has_no_card(tmp_path: Path) -> None:
    tier = own_tier(tmp_path)
    build_sweep(tmp_path, "methods", sets=(f"tier={tier}", "seeds=[0]"), failed={("method=umd,seed=0", "generate"): "oom"})
    with pytest.raises(UserError, match="sweep methods is not complete: 1 stages have no result"):
        check_tier(tmp_path, data_root(), str(tier), "methods", "test")


def test_a_sweep_over_something_else_is_refused(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={"stages.pretrain.corruption.mask_ratio": [0.25]}, sets=("seeds=[0]", "stages=[probe]"))
    with pytest.raises(UserError, match="expected the axis method alone, found mask_ratio"):
        check_tier(tmp_path, data_root(), "digits", "mask_ratio", "test")


def test_results_without_untrained_and_supervised_rows_leave_two_gates_unknown(tmp_path: Path) -> None:
    """Results of earlier versions lack these rows; no gate fails for that reason."""
    build_sweep(tmp_path, "methods", sets=("seeds=[0, 1]",))
    summary = summarize(tmp_path, "methods")
    no_training = NoTraining({"umd": 90.0, "mae": 90.0, "dit": 90.0, "maskdit": 90.0}, {}, 100.0)
    kept = {
        key: value for key, value in Numbers.of(summary).values.items() if not key[1].startswith(("untrained", "supervised"))
    }
    numbers = Numbers(kept, ("umd", "mae", "dit", "maskdit"), (0, 1))
    gates = judge(numbers, [(column.stage, column.metric) for column in summary.columns], no_training)
    assert {name: gates[name].verdict for name in ("headroom", "learning", "samples")} == {
        "headroom": "unknown",
        "learning": "unknown",
        "samples": "pass",
    }


def test_a_check_has_a_record_of_its_own() -> None:
    assert check_name("digits", "test") == "check_digits"
    assert check_name("some/Own.yaml", "validation") == "check_own_validation"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nope"], "tier = 'nope' is not accepted: expected one of"),
        (["check", "digits", "--split", "train"], "--split = 'train' is not accepted: expected one of test, validation"),
        (["check", "digits", "--seeds", "1,x"], "--seeds = '1,x' is not accepted: expected whole numbers, as in 0,1,2"),
        (["check", "digits", "--seeds", "1,1"], "--seeds = '1,1' is not accepted: expected each seed once"),
        (["check", "digits", "--card", "/proc/none/card.yaml"], "the folder of the card /proc/none cannot be written"),
        (["show", "nope"], "tier = 'nope' is not accepted"),
        (["show", "gone.yaml"], "gone.yaml cannot be read"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()
