"""Single stages: what their run directories contain. An interruption changes no bit of the metrics and the weights."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.stage_process.environment import environment
from umd_bench.orchestration.stage_process.run_stage import run_stage
from umd_bench.store import RunDir, StageState, stage_state


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return load_sweep(write_small(tmp_path_factory.mktemp("sweep"))).trials[0]


def run(root: Path, trial: Trial, name: str) -> RunDir:
    spec = trial.specs[name]
    folder = RunDir(root, spec.key)
    folder.prepare(spec)
    run_stage(root, spec.key, data_root())
    return folder


def test_results_record_their_data_environment_and_settings(tmp_path: Path, trial: Trial) -> None:
    results = {name: run(tmp_path, trial, name).result() for name in trial.specs}
    for name, result in results.items():
        assert result is not None, name
        assert result["key"] == trial.specs[name].key
        assert result["exact"] is True
        assert result["data"]["name"] == "digits"
        assert {"torch", "device", "threads", "commit", "host"} <= set(result["environment"])
    generate = results["generate"]
    assert generate is not None
    assert {"fd_digits_cnn", "is_digits_cnn", "floor_fd_digits_cnn"} <= set(generate["metrics"])
    assert not any("fid" in name for name in generate["metrics"])
    assert {"extractor_hash", "steps", "eta", "cfg_scale", "sampler", "n", "ema"} <= set(generate["facts"])
    assert (RunDir(tmp_path, trial.specs["generate"].key).artifacts / "samples.png").is_file()


def test_only_stages_that_are_compiled_record_that_they_are(trial: Trial) -> None:
    for plain in trial.specs.values():
        spec = plain.model_copy(update={"resources": plain.resources.model_copy(update={"compile": True})})
        assert environment(spec)["compiled"] is (spec.kind in ("pretrain", "finetune", "generate"))
        assert environment(plain)["compiled"] is False


def test_a_stage_that_was_stopped_ends_with_the_same_bits(tmp_path: Path, trial: Trial) -> None:
    spec = trial.specs["pretrain"]
    whole = run(tmp_path / "whole", trial, "pretrain")
    root = tmp_path / "stopped"
    parts = RunDir(root, spec.key)
    parts.prepare(spec)
    for _ in range(3):
        steps = itertools.count()
        run_stage(root, spec.key, data_root(), stop=lambda steps=steps: next(steps) >= 2)
        assert stage_state(parts) is StageState.INTERRUPTED
    run_stage(root, spec.key, data_root())
    assert parts.attempts() == [1, 2, 3, 4]
    assert parts.snapshot(640).read_bytes()[-4096:] == whole.snapshot(640).read_bytes()[-4096:]
    first, second = whole.result(), parts.result()
    assert first is not None
    assert second is not None
    assert first["metrics"] == second["metrics"]


def test_a_failing_stage_records_why_and_does_not_raise(tmp_path: Path, trial: Trial) -> None:
    folder = run(tmp_path, trial, "probe")  # its parent was never trained
    failure = folder.failure()
    assert failure is not None
    assert failure.state == "user"
    assert trial.specs["pretrain"].key in failure.message


def test_a_diverging_stage_fails_as_nan_and_equal_causes_share_a_fingerprint(tmp_path: Path) -> None:
    path = write_small(tmp_path)
    sweep = load_sweep(path, sets=["trial.stages.pretrain.optim={lr_per_256: 1e30, warmup_nimg: 0, clip_norm: 1e30}"])
    failures = [run(tmp_path, trial, "pretrain").failure() for trial in sweep.trials[:2]]
    assert [f.state for f in failures if f is not None] == ["nan", "nan"]
    assert len({f.fingerprint for f in failures if f is not None}) == 1


def test_a_stage_with_a_result_is_left_alone(tmp_path: Path, trial: Trial) -> None:
    folder = run(tmp_path, trial, "pretrain")
    before = json.dumps(folder.result())
    run_stage(tmp_path, folder.key, data_root())
    assert folder.attempts() == [1]
    assert json.dumps(folder.result()) == before
