"""Forecasts: costs scale with the work, past stages give the interval, and a forecast is compared once with the actual cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from orchestration.scripted import ScriptedExecutor
from orchestration.small import write_small

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.networks.flops import flops_per_image
from umd_bench.orchestration.forecast.accuracy import forecast_error, save_forecast, search_forecast_error
from umd_bench.orchestration.forecast.forecast import device_time, make_forecast, without_past
from umd_bench.orchestration.graph import Node, build_graph, sweep_record
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store import RunDir, write_sweep

RATE = 1e-6  # seconds per FLOP


def nodes_of(root: Path, *sets: str) -> dict[str, Node]:
    return build_graph(root, load_sweep(write_small(root), sets=("seeds=[0]", "stages=[pretrain]", *sets)).trials)


def flops(node: Node) -> float:
    stage = node.spec.stage
    assert isinstance(stage, TrainStage)
    return stage.nimg * flops_per_image(node.spec.model, stage, size=8, channels=1, classes=0)


def finish(root: Path, nodes: dict[str, Node], rates: list[float]) -> None:
    def script(node: Node, rate: float):  # type: ignore[no-untyped-def]
        def run(run: RunDir, tries: int) -> None:
            with run.begin() as attempt:
                attempt.finish({"kind": node.spec.kind, "metrics": {}, "cost": {"seconds": rate * flops(node)}})
                run.snapshot(node.spec.stage.nimg).parent.mkdir()
                run.snapshot(node.spec.stage.nimg).write_bytes(b"x" * 1000)

        return run

    scripts = {node.key: script(node, rate) for node, rate in zip(nodes.values(), rates, strict=True)}
    Scheduler(root, Grid(nodes), poll_seconds=0).run(ScriptedExecutor(root, scripts))


def test_without_finished_stages_there_is_no_forecast(tmp_path: Path) -> None:
    made = make_forecast(tmp_path, nodes_of(tmp_path), 2)
    line = (
        "no forecast for 2 pretrain stages: this results folder has no finished stage of the same kind with a network of "
        "similar size"
    )
    assert made.lines(2) == [f"{line}; `umd-bench plan FILE --measure` measures such stages"]
    assert made.lines(2, measured=True) == [line]
    save_forecast(tmp_path, "small", made)
    assert forecast_error(tmp_path, "small") is None


def test_the_cost_scales_with_flops_and_images_and_the_interval_comes_from_the_past(tmp_path: Path) -> None:
    finish(tmp_path, nodes_of(tmp_path), [RATE, 3 * RATE])
    longer = nodes_of(tmp_path, "trial.stages.pretrain.nimg=6400", "trial.model.width=32")
    total = sum(map(flops, longer.values()))
    made = make_forecast(tmp_path, longer, 1)
    assert made.seconds == pytest.approx(2 * RATE * total)
    assert made.low == pytest.approx(1.2 * RATE * total)
    assert made.high == pytest.approx(2.8 * RATE * total)
    assert made.bytes_on_disk == pytest.approx(2 * 4 * 1000)  # two stages, each with four times the parameters
    assert (made.waves, make_forecast(tmp_path, longer, 2).waves) == (2, 1)
    assert make_forecast(tmp_path, longer, 1, copies=3).seconds == pytest.approx(3 * made.seconds)
    assert "2 waves on 1 worker" in made.lines(1)[0]


def test_a_network_of_a_very_different_size_is_no_basis_for_a_forecast(tmp_path: Path) -> None:
    finish(tmp_path, nodes_of(tmp_path), [RATE, RATE])
    large = nodes_of(tmp_path, "trial.model.width=256", "trial.model.depth=4")
    made = make_forecast(tmp_path, large, 1)
    assert (made.keys, made.without_basis) == ((), {"pretrain": 2})
    assert [node.key for node in without_past(tmp_path, large)] == list(large), "--measure measures these stages"


def test_a_single_finished_stage_gives_an_interval_of_a_factor_of_two(tmp_path: Path) -> None:
    one = {"axes.stages.pretrain.corruption.mask_ratio=[0.25]"}
    finish(tmp_path, nodes_of(tmp_path, *one), [RATE])
    made = make_forecast(tmp_path, nodes_of(tmp_path, *one, "trial.stages.pretrain.nimg=1280"), 1)
    assert (made.low, made.high) == pytest.approx((made.seconds / 2, made.seconds * 2))


def test_a_finished_stage_costs_nothing(tmp_path: Path) -> None:
    finish(tmp_path, nodes_of(tmp_path), [RATE, RATE])
    made = make_forecast(tmp_path, nodes_of(tmp_path), 1)
    assert (made.keys, made.seconds, made.lines(1)) == ((), 0.0, [])


def test_the_error_is_reported_and_saved_once_when_all_stages_are_done(tmp_path: Path) -> None:
    finish(tmp_path, nodes_of(tmp_path), [RATE, RATE])
    longer = nodes_of(tmp_path, "trial.stages.pretrain.nimg=1280")
    save_forecast(tmp_path, "small", make_forecast(tmp_path, longer, 1))
    assert forecast_error(tmp_path, "small") is None
    finish(tmp_path, longer, [1.5 * RATE, 1.5 * RATE])
    line = forecast_error(tmp_path, "small")
    assert line is not None
    assert "+50%, outside the interval" in line
    assert '"error": 0.5' in (tmp_path / "sweeps" / "small" / "forecast.json").read_text()
    assert forecast_error(tmp_path, "small") is None


def test_the_cost_of_a_resumed_stage_includes_all_its_attempts(tmp_path: Path) -> None:
    finish(tmp_path, nodes_of(tmp_path), [RATE, RATE])
    longer = nodes_of(tmp_path, "trial.stages.pretrain.nimg=12800")
    made = make_forecast(tmp_path, longer, 1)
    save_forecast(tmp_path, "small", made)
    for node in longer.values():  # three quarters in an attempt that was killed, the rest in a second one
        run, seconds = RunDir(tmp_path, node.key), RATE * flops(node)
        run.prepare(node.spec)
        with run.begin() as attempt:
            lines = [{"event": "state", "time": 100.0}, {"event": "metrics", "time": 100.0 + 0.75 * seconds}]
            (attempt.path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with run.begin() as attempt:
            attempt.finish({"kind": "pretrain", "metrics": {}, "cost": {"seconds": 0.25 * seconds}, "attempts": 2})
    line = forecast_error(tmp_path, "small")
    assert line is not None
    assert "+0%, inside the interval" in line
    later = make_forecast(tmp_path, nodes_of(tmp_path, "trial.stages.pretrain.nimg=25600"), 1)
    assert later.seconds == pytest.approx(2 * made.seconds), "the next forecast counts all attempts too"


def test_in_a_search_each_node_counts_as_many_stages_even_if_it_is_finished(tmp_path: Path) -> None:
    nodes = nodes_of(tmp_path)
    finish(tmp_path, nodes, [RATE, RATE])
    assert make_forecast(tmp_path, nodes_of(tmp_path), 1).keys == ()
    assert make_forecast(tmp_path, nodes_of(tmp_path), 1, copies=5).seconds == pytest.approx(
        5 * RATE * sum(map(flops, nodes.values()))
    )


def test_the_forecast_of_a_search_is_compared_with_the_time_of_all_attempts_since_then(tmp_path: Path) -> None:
    finish(tmp_path, nodes_of(tmp_path), [RATE, RATE])
    sweep = load_sweep(write_small(tmp_path), sets=("seeds=[1]", "stages=[pretrain]"))
    made = make_forecast(tmp_path, build_graph(tmp_path, sweep.trials), 1)
    write_sweep(tmp_path, sweep_record(sweep))
    save_forecast(tmp_path, "small", made)
    since = (tmp_path / "sweeps" / "small" / "forecast.json").stat().st_mtime
    for trial in sweep.trials:
        run = RunDir(tmp_path, trial.specs["pretrain"].key)
        run.prepare(trial.specs["pretrain"])
        lines = [{"event": "state", "time": since + at} for at in (-50, -40, 1, 1 + made.seconds)]
        folder = run.attempt_path(1)
        folder.mkdir()
        (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    line = search_forecast_error(tmp_path, "small")
    assert line is not None
    assert "+100%, " in line
    assert search_forecast_error(tmp_path, "small") is None


def test_every_device_of_every_attempt_counts(tmp_path: Path) -> None:
    nodes = nodes_of(tmp_path)
    for node in nodes.values():
        run = RunDir(tmp_path, node.key)
        run.prepare(node.spec)
        with run.begin() as attempt:
            (attempt.path / "environment.json").write_text('{"world_size": 4}')
            lines = [{"event": "state", "time": 100.0}, {"event": "metrics", "time": 101.0}]
            (attempt.path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with run.begin() as attempt:
            facts = {"kind": "pretrain", "metrics": {}, "environment": {"world_size": 2}, "attempts": 2}
            attempt.finish({**facts, "cost": {"seconds": 3.0}})
    longer = nodes_of(tmp_path, "trial.stages.pretrain.nimg=1280")
    assert make_forecast(tmp_path, longer, 1).seconds == pytest.approx(2 * 2 * (4 * 1.0 + 2 * 3.0), rel=0.01)
    assert "from 2 finished stages" in make_forecast(tmp_path, longer, 1).lines(1)[0]


def test_waves_count_jobs_if_stages_are_packed(tmp_path: Path) -> None:
    finish(tmp_path, nodes_of(tmp_path), [RATE, RATE])
    longer = nodes_of(tmp_path, "trial.stages.pretrain.nimg=1280", "seeds=[0, 1, 2]")
    assert make_forecast(tmp_path, longer, 2).waves == 3
    assert make_forecast(tmp_path, longer, 2, pack=2).waves == 2
    assert make_forecast(tmp_path, longer, 2, pack=3).lines(2, "job of 3 stages")[0].endswith("1 wave on 2 jobs of 3 stages")
    spread = nodes_of(tmp_path, "trial.stages.pretrain.nimg=1280", "seeds=[0, 1, 2]", "trial.resources.devices=2")
    assert make_forecast(tmp_path, spread, 2, pack=3).waves == 3, "a stage on several devices is a job of its own"


def test_a_time_is_printed_in_a_readable_unit() -> None:
    assert device_time(3.14159, 1, 20) == "3.14 device-seconds (1 to 20)"
    assert device_time(600, 300, 9000) == "10 device-minutes (5 to 150)"
    assert device_time(25_416) == "7.06 device-hours"
