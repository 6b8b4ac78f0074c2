"""The command line end to end: a sweep, its resumption after kill -9, and one clear line for every mistake."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from orchestration.small import SMALL, write_small

import umd_bench

COMMAND = [sys.executable, "-c", "from umd_bench.cli import main; main()"]
TABLES = ("table.md", "table.csv", "long.csv", "table.tex", "table.html", "figure.png")


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


def tables(results: Path) -> dict[str, bytes]:
    return {name: (results / "sweeps" / "small" / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    done = run("sweep", write_small(folder), "--on", "inline", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 trials, 20 stages, 0 reused" in done.stdout
    return folder


@pytest.mark.slow
def test_a_second_run_reuses_everything_and_writes_the_same_bytes(finished: Path) -> None:
    before = tables(finished / "results")
    again = run("sweep", "small.yaml", cwd=finished)
    assert again.returncode == 0, again.stderr
    assert "20 reused" in again.stdout
    assert tables(finished / "results") == before
    attempts = list((finished / "results" / "stages").glob("*/attempt-*"))
    assert len(attempts) == 20


@pytest.mark.slow
def test_a_killed_ray_sweep_resumes_to_the_same_tables_as_an_inline_one(finished: Path, tmp_path: Path) -> None:
    write_small(tmp_path)
    command = [*COMMAND, "sweep", "small.yaml", "--on", "ray", "--workers", "2", "--mlflow", "off"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    stages = tmp_path / "results" / "stages"
    deadline = time.monotonic() + 120
    while len(list(stages.glob("*/result.json"))) < 3 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= len(list(stages.glob("*/result.json"))) < 20
    resumed = run("sweep", "small.yaml", "--on", "ray", "--mlflow", "off", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert tables(tmp_path / "results") == tables(finished / "results")


@pytest.mark.slow
def test_verbs_that_read_results(finished: Path) -> None:
    checked = json.loads(run("doctor", "--json", "--mlflow", "off", cwd=finished).stdout)
    assert {"pass"} <= {finding["level"] for finding in checked["findings"]} <= {"pass", "warn"}
    reported = json.loads(run("table", "small", "--json", cwd=finished).stdout)
    assert [row["mask_ratio"] for row in reported["rows"] if row["row"] == "arm"] == [0.25, 0.5]
    assert reported["rows"][0]["generate.fd_digits_cnn.n"] == 2
    status = run("status", "small", cwd=finished)
    assert status.stdout.count("done") >= 20
    plan = run("plan", "small.yaml", "--set", "seeds=[0, 1, 2]", cwd=finished)
    assert "30 stages: 10 new, 20 reused" in plan.stdout
    plan_json = json.loads(run("plan", "small.yaml", "--set", "seeds=[0, 1, 2]", "--json", cwd=finished).stdout)
    assert [stage["what"] for stage in plan_json["stages"]].count("reused") == 20
    assert (plan_json["sweep"], plan_json["forecast"]["stages"]) == ("small", 10)
    assert run("table", "small", cwd=finished).returncode == 0
    key = next(
        path.parent.name
        for path in (finished / "results" / "stages").glob("*/config.yaml")
        if "kind: finetune" in path.read_text()
    )
    sampled = run("sample", key, "--n", "10", "--steps", "2", "--out", "grid.png", cwd=finished)
    assert sampled.returncode == 0, sampled.stderr
    interval = ("--sampler", "heun", "--cfg-scale", "1", "--cfg-interval", "10", "500")
    assert run("sample", key, "--n", "10", "--steps", "2", "--out", "heun.png", *interval, cwd=finished).returncode == 0
    refused = run("sample", key, "--n", "10", "--sampler", "heun", "--eta", "0.5", "--out", "no.png", cwd=finished)
    assert (refused.returncode, (finished / "no.png").exists()) == (2, False)
    assert "the sampler heun takes no eta" in refused.stderr
    assert (finished / "grid.png").stat().st_size > 100
    scored = run("evaluate", key, "--set", "generate.n=20", "--set", "generate.steps=2", cwd=finished)
    assert scored.returncode == 0, scored.stdout + scored.stderr
    assert "fd_digits_cnn" in scored.stdout
    assert run("mlflow", "push", cwd=finished).returncode == 0


@pytest.mark.parametrize(("verb", "part"), [("import", "the one that fits"), ("sample", "default: always")])
def test_help_describes_defaults_that_are_not_values(tmp_path: Path, verb: str, part: str) -> None:
    text = " ".join(run(verb, "--help", cwd=tmp_path).stdout.replace("│", " ").split())
    assert part in text


@pytest.mark.slow
def test_a_failed_trial_leaves_exit_code_1_and_the_others_done(tmp_path: Path) -> None:
    write_small(tmp_path, SMALL.replace("seeds: [0, 1]", "seeds: [0]"))
    broken = run(
        "sweep", "small.yaml", "--on", "inline", "--mlflow", "off",
        "--set", "axes.stages.pretrain.optim.lr_per_256=[0.001, 1.0e+30]",
        "--set", "trial.stages.pretrain.optim.clip_norm=1e30",
        cwd=tmp_path,
    )  # fmt: skip
    assert broken.returncode == 1
    assert "failed (nan)" in broken.stdout
    assert "continues from here" in broken.stdout
    assert len(list((tmp_path / "results" / "stages").glob("*/result.json"))) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "arguments", "parts"),
    [
        (("nimg: 640", "ningm: 640"), [], ["small.yaml:8", "unknown field stages.pretrain.ningm", "nimg"]),
        (("[0.25, 0.5]", "[0.25, 1.5]"), [], ["small.yaml:15", "mask_ratio = 1.5", "less than 1"]),
        (("name: small", "name: small"), ["--set", "trial.noise.schedule=quadratic"], ["quadratic", "cosine, edm"]),
        (("name: small", "name: small"), ["--set", "trial.data.name=mnist"], ["mnist", "digits"]),
        (("name: small", "name: small"), ["--set", "trial.stages.generate.extractor=vgg"], ["vgg", "digits_cnn"]),
        (("name: small", "name: small"), ["--set", "trial.stages.generate.sampler=euler2"], ["euler2", "ddim"]),
        (("name: small", "name: small"), ["--set", "trial.model.patch=3"], ["model.patch = 3", "divisor"]),
        (("seeds: [0, 1]", "seeds: [0, 1"), [], ["broken YAML"]),
        (
            ("name: small", "name: small"),
            ["--set", "trial.stages.pretrain.corruption.mask_ratio_t0=0"],
            ["clean images nothing to predict"],
        ),
        (("name: small", "name: small"), ["--results", "small.yaml/results"], ["results folder", "cannot be written"]),
        (("name: small", "name: small"), ["--on", "pbs"], ["pbs", "inline, ray"]),
        (("name: small", "name: small"), ["--fuse", "always"], ["--fuse 'always'", "auto, off, on"]),
        (("name: small", "name: small"), ["--on", "slurm", "--fuse", "on"], ["a job trains one stage", "found --on slurm"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_starts_nothing(
    tmp_path: Path, change: tuple[str, str], arguments: list[str], parts: list[str]
) -> None:
    write_small(tmp_path, SMALL.replace(*change))
    wrong = run("sweep", "small.yaml", *arguments, cwd=tmp_path)
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
    lines = wrong.stderr.strip().splitlines()
    assert len(lines) == 1, wrong.stderr
    for part in parts:
        assert part in lines[0]
    assert not list(tmp_path.glob("results/stages/*"))


def test_a_missing_file_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    wrong = run("sweep", "nowhere.yaml", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "nowhere.yaml cannot be read" in wrong.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_one_line_and_does_not_import_torch(tmp_path: Path) -> None:
    watched = "import sys; from umd_bench.cli import main\ntry: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", watched, "--version"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert printed.stdout.startswith(f"umd-bench {umd_bench.__version__}")
    assert f"torch {importlib.metadata.version('torch')}\n" in printed.stdout
    assert printed.stderr.strip() == "False"


def test_help_names_every_verb(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path).stdout
    verbs = "sweep plan table paper status watch logs retry cancel train sample evaluate score import export schema doctor"
    verbs += " data mlflow bench extractor"
    for verb in verbs.split():
        assert verb in text
