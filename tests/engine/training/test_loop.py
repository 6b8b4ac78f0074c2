"""Training is exact under interruption, publishes the requested snapshots, and reports errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine.small_runs import BATCH, SOURCE, STEPS, Killed, after, made_up_pack, run_of, training
from safetensors.torch import load_file

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import CorruptionConfig, OptimConfig
from umd_bench.config.trial.trial import Resources
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.training import loop
from umd_bench.engine.training.loop import Stopped, TrainResult, train
from umd_bench.engine.training.snapshot import load_snapshot, restore_model
from umd_bench.engine.training.state import NonFiniteError
from umd_bench.store.run import RunDir

END = BATCH * STEPS


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return made_up_pack(tmp_path_factory.mktemp("pack"))


def attempt(run: RunDir, spec: StageSpec, pack: Pack, stop: Callable[[], bool] = lambda: False) -> TrainResult:
    with run.begin() as this:
        return train(spec, pack, this, stop=stop)


def warnings(run: RunDir) -> list[str]:
    return [event["message"] for event in run.events() if event["event"] == "warning"]


def same_run(run: RunDir, whole: RunDir) -> None:
    for ema in (False, True):
        ours, theirs = load_snapshot(run, END, ema=ema), load_snapshot(whole, END, ema=ema)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name


@pytest.fixture(scope="module")
def whole(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, TrainResult]:
    """An uninterrupted run."""
    spec = training(snapshots=(10 * BATCH,))
    run = run_of(spec, tmp_path_factory.mktemp("whole"))
    return run, attempt(run, spec, pack)


def test_a_run_learns_and_reports(whole: tuple[RunDir, TrainResult], pack: Pack) -> None:
    run, result = whole
    assert result.nimg == END
    assert result.exact
    assert result.resumed_from is None
    assert result.metrics.keys() == {"loss_final", "loss_t0_final", "loss_t_final"}
    records = [event for event in run.events() if event["event"] == "metrics"]
    assert [event["nimg"] for event in records] == list(range(BATCH, END + 1, BATCH))
    assert records[0]["lr"] == 0
    assert result.metrics["loss_final"] < 0.8 * records[0]["loss"]
    last_tenth = [event["loss"] for event in records if event["nimg"] - BATCH >= 0.9 * END]
    assert result.metrics["loss_final"] == pytest.approx(sum(last_tenth) / len(last_tenth), rel=1e-6)
    assert {"loss", "loss_t0", "loss_t", "grad_norm", "lr", "images_per_second"} < records[0].keys()
    assert sorted(path.name for path in run.snapshot(END).parent.iterdir()) == [run.snapshot(n).name for n in (10 * BATCH, END)]
    assert not list(run.path.glob("attempt-*/checkpoints/*"))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 1, 4, 5, 12, 23])
def test_a_stopped_run_resumes_to_the_same_bits(
    steps: int, whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path
) -> None:
    spec = training(snapshots=(10 * BATCH,))
    run = run_of(spec, tmp_path)
    with pytest.raises(Stopped):
        attempt(run, spec, pack, after(steps))
    result = attempt(run, spec, pack)
    assert result.resumed_from == (steps * BATCH or None)
    assert result.metrics == whole[1].metrics
    assert result.exact
    same_run(run, whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 5, 7, 11])
def test_a_killed_run_resumes_from_its_checkpoint_to_the_same_bits(
    steps: int, whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path
) -> None:
    spec = training(snapshots=(10 * BATCH,))
    run = run_of(spec, tmp_path)
    for _ in range(2):  # the second attempt is killed too
        with pytest.raises(Killed):
            attempt(run, spec, pack, after(steps, Killed))
    assert any(run.path.glob("attempt-*/checkpoints/*")) == (steps >= 5), "there is a checkpoint every five steps"
    result = attempt(run, spec, pack)
    assert result.metrics == whole[1].metrics
    same_run(run, whole[0])
    assert list(run.path.glob("attempt-*/checkpoints/*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["bit", "torn", "no checksum", "not safetensors"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    damage: str, whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path
) -> None:
    spec = training(snapshots=(10 * BATCH,))
    run = run_of(spec, tmp_path)
    with pytest.raises(Killed):
        attempt(run, spec, pack, after(17, Killed))
    older, newest = sorted(run.checkpoint_dirs()[0].glob("*.safetensors"))
    data = newest.read_bytes()
    match damage:
        case "bit":
            newest.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
        case "torn":
            newest.write_bytes(data[: len(data) // 2])
        case "no checksum":
            newest.with_suffix(".sha256").unlink()
        case _:
            newest.write_bytes(b"nonsense")
            newest.with_suffix(".sha256").write_text("3a1e0d4c")
    result = attempt(run, spec, pack)
    assert result.resumed_from == int(older.stem.removeprefix("nimg-")) == 10 * BATCH
    assert len(warnings(run)) == 1
    assert newest.name in warnings(run)[0]
    same_run(run, whole[0])


def test_an_attempt_keeps_at_most_two_checkpoints(pack: Pack, tmp_path: Path) -> None:
    spec = training(checkpoint_every_nimg=BATCH)
    run = run_of(spec, tmp_path)
    with pytest.raises(Killed):
        attempt(run, spec, pack, after(9, Killed))
    names = sorted(path.name for path in run.checkpoint_dirs()[0].iterdir())
    kept = [f"nimg-{n * BATCH:012d}" for n in (8, 9)]
    assert names == sorted(f"{name}.{kind}" for name in kept for kind in ("safetensors", "sha256"))


@pytest.mark.slow
def test_a_resume_in_another_environment_is_marked_and_stays_marked(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = training()
    run = run_of(spec, tmp_path)
    with pytest.raises(Stopped):
        attempt(run, spec, pack, after(6))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch, "get_num_threads", lambda: 64)
        with pytest.raises(Stopped):
            attempt(run, spec, pack, after(6))
        assert "threads 1 -> 64" in warnings(run)[0]
        assert not attempt(run, spec, pack).exact
        assert len(warnings(run)) == 1
    assert not attempt(run, spec, pack).exact


def test_nothing_is_trained_if_every_snapshot_exists(whole: tuple[RunDir, TrainResult], pack: Pack) -> None:
    run, result = whole
    before = run.snapshot(END).stat()
    again = attempt(run, training(snapshots=(10 * BATCH,)), pack)
    assert again.metrics == result.metrics
    assert again.seconds == 0
    assert again.images_per_second > 0
    assert run.snapshot(END).stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "resumed_from"), [(12, 10 * BATCH), (17, 10 * BATCH), (22, None), (None, None)])
def test_a_snapshot_requested_later_is_trained_from_an_earlier_checkpoint(
    steps: int | None, resumed_from: int | None, whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path
) -> None:
    plain, requested = training(), training(snapshots=(10 * BATCH,))
    assert plain.key == requested.key
    run = run_of(plain, tmp_path)
    if steps is None:
        attempt(run, plain, pack)
    else:
        with pytest.raises(Killed):
            attempt(run, plain, pack, after(steps, Killed))
    result = attempt(run, requested, pack)
    assert result.resumed_from == resumed_from
    assert result.metrics == whole[1].metrics
    early, expected = load_snapshot(run, 10 * BATCH), load_snapshot(whole[0], 10 * BATCH)
    assert all(torch.equal(early[name], value) for name, value in expected.items())
    same_run(run, whole[0])


@pytest.mark.parametrize("fields", [{"kind": "finetune", "parent": "pretrain"}, {"seed": 1}, {"labels": False}])
def test_every_setting_that_should_change_the_weights_does(
    fields: dict[str, object], whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path
) -> None:
    if "parent" in fields:
        fields = {**fields, "parent_key": whole[0].key, "parent_nimg": END}
        (tmp_path / "stages").mkdir()
        (tmp_path / "stages" / whole[0].key).symlink_to(whole[0].path)
    spec = training(**fields)
    run = run_of(spec, tmp_path)
    attempt(run, spec, pack)
    assert not torch.equal(load_snapshot(run, END)["pos_embed"], load_snapshot(whole[0], END)["pos_embed"])


def test_a_child_starts_from_its_parents_weights_with_new_labels_and_moments(pack: Pack, tmp_path: Path) -> None:
    parent_spec = training(labels=False)
    parent = run_of(parent_spec, tmp_path)
    attempt(parent, parent_spec, pack)
    spec = training(kind="finetune", parent="pretrain", parent_key=parent.key, parent_nimg=END, snapshots=(BATCH,))
    run = run_of(spec, tmp_path)
    attempt(run, spec, pack)
    first = load_snapshot(run, BATCH)  # equal to the initial weights, since the first update has learning rate 0
    trained = load_snapshot(parent, END)
    assert all(torch.equal(first[name], value) for name, value in trained.items())
    fresh = build_model(spec.model, size=8, channels=1, classes=3, seed=0).state_dict()
    assert {name for name in first if name not in trained} == {name for name in fresh if name.startswith("label_embed.")}
    assert all(torch.equal(first[name], fresh[name]) for name in first if name not in trained)


def test_a_child_without_labels_takes_all_weights_of_its_parent_but_the_label_embedding(
    whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path
) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / whole[0].key).symlink_to(whole[0].path)
    fields = {"kind": "finetune", "parent": "pretrain", "parent_key": whole[0].key, "parent_nimg": END, "labels": False}
    spec = training(**fields, snapshots=(BATCH,))
    run = run_of(spec, tmp_path)
    attempt(run, spec, pack)
    trained, first = load_snapshot(whole[0], END), load_snapshot(run, BATCH)
    assert {name for name in trained if name not in first} == {name for name in trained if name.startswith("label_embed.")}
    assert all(torch.equal(value, trained[name]) for name, value in first.items())
    other = StageSpec.model_validate({**spec.model_dump(), "model": {**spec.model.model_dump(), "adaln": False}})
    with pytest.raises(RuntimeError, match=r"(?s)Unexpected key.*modulation"):
        attempt(run_of(other, tmp_path), other, pack)


def test_a_missing_parent_is_a_user_error(pack: Pack, tmp_path: Path) -> None:
    spec = training(kind="finetune", parent="pretrain", parent_key="0123456789abcdef", parent_nimg=64)
    with pytest.raises(UserError, match="run 0123456789abcdef keeps no weights at nimg = 64: expected one of"):
        attempt(run_of(spec, tmp_path), spec, pack)


@pytest.mark.parametrize("length", [{}, {"nimg": 420, "batch": 2}])  # the longer stage does not record every step
@pytest.mark.parametrize("lr", [1e30, 1e42])  # the loss becomes NaN, or the first step makes the weights NaN
@pytest.mark.parametrize("saved", ["checkpoint", "snapshot"])
def test_a_diverging_run_ends_and_publishes_nothing(
    saved: str, lr: float, length: dict[str, int], pack: Pack, tmp_path: Path
) -> None:
    optim = OptimConfig(lr_per_256=lr, clip_norm=1e30)
    batch = length.get("batch", BATCH)
    at = batch if saved == "checkpoint" else (batch,)
    spec = training(optim=optim, **{"checkpoint_every_nimg" if saved == "checkpoint" else "snapshots": at}, **length)
    run = run_of(spec, tmp_path)
    with pytest.raises(NonFiniteError, match="not finite after"):
        attempt(run, spec, pack)
    for path in run.path.rglob("*.safetensors"):
        assert all(value.isfinite().all() for name, value in load_file(path).items() if name.startswith("model/")), path


def test_trials_with_one_seed_see_the_same_draws(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[torch.Tensor]] = []
    real = loop.draw_noise

    def recorded(x_0: torch.Tensor, *rest: object) -> object:
        noise = real(x_0, *rest)  # type: ignore[arg-type]
        drawn.append([x_0, *noise])
        return noise

    monkeypatch.setattr(loop, "draw_noise", recorded)
    for r_t0, ratio in ((0.5, 0.375), (0.0, 0.75)):
        spec = training(corruption=CorruptionConfig(r_t0=r_t0, mask_ratio=ratio))
        attempt(run_of(spec, tmp_path), spec, pack)
    for one, other in zip(drawn[:STEPS], drawn[STEPS:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(drawn[0][2], drawn[1][2])
    generator = torch.Generator().manual_seed(derive_seed(0, "pretrain/noise", 3 * BATCH))
    assert torch.equal(drawn[3][2], real(drawn[3][0], 16, NoiseProcess(NoiseConfig(timesteps=50)), generator).eps)


@pytest.mark.slow
def test_the_global_generator_is_neither_read_nor_moved(whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    spec = training(snapshots=(10 * BATCH,))
    run = run_of(spec, tmp_path)
    attempt(run, spec, pack)
    assert torch.equal(before, torch.get_rng_state())
    same_run(run, whole[0])


@pytest.mark.slow
def test_bf16_precision_trains_float32_weights_close_to_fp32(
    whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path
) -> None:
    spec = training(precision="bf16")
    run = run_of(spec, tmp_path)
    result = attempt(run, spec, pack)
    assert all(value.dtype == torch.float32 for value in load_snapshot(run, END).values())
    assert result.metrics["loss_final"] == pytest.approx(whole[1].metrics["loss_final"], rel=0.1)
    assert result.metrics["loss_final"] != whole[1].metrics["loss_final"]


@pytest.mark.slow
def test_a_compiled_stage_is_close_to_an_uncompiled_one_and_resumes_to_the_same_bits(pack: Pack, tmp_path: Path) -> None:
    plain = training(
        corruption=CorruptionConfig(r_t0=1, mask_ratio_t0=0.5)
    )  # only clean images, so that there is less to compile
    compiled = plain.model_copy(update={"resources": Resources(device="cpu", compile=True)})
    assert compiled.key == plain.key
    alone, whole, halved = (run_of(plain, tmp_path / name) for name in ("alone", "whole", "halved"))
    expected, found = attempt(alone, plain, pack), attempt(whole, compiled, pack)
    assert found.metrics["loss_final"] == pytest.approx(expected.metrics["loss_final"], rel=1e-3)
    assert found.metrics["loss_final"] != expected.metrics["loss_final"]

    with pytest.raises(Stopped):
        attempt(halved, compiled, pack, after(7))
    shutil.copytree(tmp_path / "halved", tmp_path / "mixed")
    counters = torch._dynamo.utils.counters
    counters.clear()
    assert attempt(halved, compiled, pack).exact
    assert counters["inductor"]["fxgraph_cache_hit"] == 2  # forward and backward, from the cache on disk
    assert not counters["inductor"]["fxgraph_cache_miss"]
    same_run(halved, whole)
    assert not attempt(RunDir(tmp_path / "mixed", plain.key), plain, pack).exact


def test_the_average_in_a_snapshot_covers_the_weights_up_to_the_snapshot(pack: Pack, tmp_path: Path) -> None:
    nimgs = [BATCH * n for n in (1, 2, 3, 4)]
    # Weights move by 0.3 in a step, so that an average with a decay of 0.999997 moves visibly.
    optim = OptimConfig(lr_per_256=10, warmup_nimg=BATCH, ema=True, weight_decay=0)
    spec = training(nimg=nimgs[-1], snapshots=nimgs, optim=optim)
    run = run_of(spec, tmp_path)
    attempt(run, spec, pack)
    first = expected = load_snapshot(run, nimgs[0])["pos_embed"]  # after an update of learning rate 0
    for nimg in nimgs[1:]:
        expected = torch.lerp(expected, load_snapshot(run, nimg)["pos_embed"], 1e-4 * BATCH / 256)
        torch.testing.assert_close(load_snapshot(run, nimg, ema=True)["pos_embed"], expected, rtol=0, atol=1e-7)
    assert (expected - first).abs().max() > 1e-6


@pytest.mark.parametrize(("r_t0", "absent"), [(0.0, "loss_t0"), (1.0, "loss_t")])
def test_without_clean_or_noised_images_their_loss_is_left_out(r_t0: float, absent: str, pack: Pack, tmp_path: Path) -> None:
    spec = training(corruption=CorruptionConfig(r_t0=r_t0))
    run = run_of(spec, tmp_path)
    result = attempt(run, spec, pack)
    assert f"{absent}_final" not in result.metrics
    assert absent not in next(event for event in run.events() if event["event"] == "metrics")


@pytest.mark.slow
def test_a_long_stage_records_metrics_about_a_hundred_times(pack: Pack, tmp_path: Path) -> None:
    spec = training(nimg=2 * 210, batch=2, corruption=CorruptionConfig(r_t0=0.5, mask_ratio=0.5))
    run = run_of(spec, tmp_path)
    attempt(run, spec, pack)
    records = [event["nimg"] for event in run.events() if event["event"] == "metrics"]
    assert 90 <= len(records) <= 130
    assert records[-1] == 420


def test_a_restored_model_is_the_trained_one_and_ready_to_evaluate(whole: tuple[RunDir, TrainResult]) -> None:
    run, _ = whole
    model, average = (restore_model(run, END, source=SOURCE, ema=ema, device="cpu") for ema in (False, True))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, load_snapshot(run, END)[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, load_snapshot(run, END, ema=True)[name]) for name, p in average.named_parameters())
    assert not torch.equal(model.pos_embed, average.pos_embed)
    assert model.represent(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)).shape == (2, 16)


def test_missing_and_damaged_snapshots_are_user_errors(whole: tuple[RunDir, TrainResult], pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"keeps no weights at nimg = 7: expected one of \[80, 192\]"):
        load_snapshot(whole[0], 7)
    spec = training(optim=OptimConfig())
    run = run_of(spec, tmp_path)
    attempt(run, spec, pack)
    with pytest.raises(UserError, match="keeps no average of the weights"):
        load_snapshot(run, END, ema=True)
    data = run.snapshot(END).read_bytes()
    for broken in (data[:-10], b"", b"nonsense, and more of it"):
        run.snapshot(END).write_bytes(broken)
        with pytest.raises(UserError, match="is damaged"):
            load_snapshot(run, END)
        with pytest.raises(UserError, match="is damaged"):
            attempt(run, spec, pack)


def test_a_stage_that_does_not_train_is_refused(pack: Pack, tmp_path: Path) -> None:
    spec = training().model_copy(update={"stage": ProbeStage(parent="pretrain")})
    run = run_of(spec, tmp_path)
    with pytest.raises(UserError, match="a probe stage trains nothing"):
        attempt(run, spec, pack)
    with pytest.raises(UserError, match="is a probe stage and has no weights"):
        restore_model(run, END, source=SOURCE)
