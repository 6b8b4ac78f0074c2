"""Fused stages have the results of stages that are trained alone. Each ends by itself and resumes from its own checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.small_runs import BATCH, STEPS, made_up_pack, run_of, training
from torch.nn import functional as F

from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import CorruptionConfig, OptimConfig
from umd_bench.config.trial.trial import Resources
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.fusion.fused_loop import Ending, at_the_same_point, train_fused
from umd_bench.engine.fusion.shape import may_fuse
from umd_bench.engine.fusion.stacked_weights import Rows, stack_for
from umd_bench.engine.training.loop import Stopped, TrainResult, train
from umd_bench.engine.training.snapshot import load_snapshot
from umd_bench.engine.training.state import NonFiniteError
from umd_bench.store.run import RunDir

END = BATCH * STEPS
LR = {"ema": True, "first_moment": "bf16"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return made_up_pack(tmp_path_factory.mktemp("pack"))


def optim(**fields: Any) -> OptimConfig:
    return OptimConfig.model_validate({"lr_per_256": 0.03, "warmup_nimg": 2 * BATCH, **LR, **fields})


def corruption(r_t0: float) -> CorruptionConfig:
    return CorruptionConfig(r_t0=r_t0, mask_ratio=0.375)


# Settings in which fused stages may differ.
OWN: dict[str, list[dict[str, Any]]] = {
    "seed": [{"seed": 0}, {"seed": 1}, {"seed": 2}],
    "rates": [
        {"optim": optim()},
        {"optim": optim(lr_per_256=0.01, weight_decay=0.3, warmup_nimg=5 * BATCH)},
        {"optim": optim(clip_norm=0.05, beta2=0.9, ema_rate_per_256=0.5, eps=1e-4)},
    ],
    "schedule": [{"noise": name} for name in ("cosine", "linear", "flow-uniform")],
    "loss weight": [{"loss_weight": "min_snr"}, {"loss_weight": "uniform"}, {"loss_weight": "min_snr", "min_snr_gamma": 1.0}],
    "r_t0": [{"corruption": corruption(r_t0)} for r_t0 in (0.5, 0.0, 1.0, 0.25)],
}


def stage(**fields: Any) -> StageSpec:
    schedule = fields.pop("noise", None)
    spec = training(**{"optim": optim(), **fields})
    if schedule is None:
        return spec
    return StageSpec.model_validate({**spec.model_dump(), "noise": NoiseConfig(timesteps=50, schedule=schedule)})


def fuse(specs: list[StageSpec], root: Path, pack: Pack, stop: Callable[[str], bool] = lambda key: False) -> dict[str, Ending]:
    with contextlib.ExitStack() as attempts:
        jobs = [(spec, attempts.enter_context(run_of(spec, root).begin())) for spec in specs]
        endings: dict[str, Ending] = {}
        train_fused(at_the_same_point(jobs), pack, stop=stop, ended=endings.__setitem__)
        return {spec.key: endings[spec.key] for spec in specs if spec.key in endings}


def alone(spec: StageSpec, root: Path, pack: Pack) -> TrainResult:
    with run_of(spec, root).begin() as attempt:
        return train(spec, pack, attempt)


def stopped_alone(spec: StageSpec, root: Path, pack: Pack) -> None:
    """Train the stage alone, and stop after seven steps."""
    calls = iter(range(100))
    with run_of(spec, root).begin() as attempt, pytest.raises(Stopped):
        train(spec, pack, attempt, stop=lambda: next(calls) >= 7)


def metrics(root: Path, spec: StageSpec) -> list[dict[str, Any]]:
    return [event for event in RunDir(root, spec.key).events() if event["event"] == "metrics"]


def same(spec: StageSpec, root: Path, other: Path, nimg: int = END, *, tolerance: float = 2e-3) -> None:
    """Weights and averages differ by at most ``tolerance`` times their norm; AdamW's first steps amplify rounding."""
    for ema in {False, spec.stage.optim.ema}:  # type: ignore[union-attr]
        ours, theirs = (load_snapshot(RunDir(folder, spec.key), nimg, ema=ema) for folder in (root, other))
        assert ours.keys() == theirs.keys()
        far = torch.cat([(ours[name] - value).flatten() for name, value in theirs.items()]).norm()
        size = torch.cat([value.flatten() for value in theirs.values()]).norm()
        assert far <= tolerance * size, (far / size).item()


def whole(endings: dict[str, Ending]) -> Iterator[TrainResult]:
    for ending in endings.values():
        assert isinstance(ending, TrainResult), ending
        yield ending


@pytest.mark.slow
@pytest.mark.parametrize("first_moment", ["fp32", "bf16"])
@pytest.mark.parametrize("setting", OWN)
def test_fused_stages_have_the_results_of_stages_trained_alone(
    setting: str, first_moment: str, pack: Pack, tmp_path: Path
) -> None:
    specs = [stage(**fields, snapshots=(3 * BATCH,)) for fields in OWN[setting]]
    if first_moment == "fp32":
        plain = [spec.stage.optim.model_copy(update={"first_moment": "fp32"}) for spec in specs]  # type: ignore[union-attr]
        specs = [
            spec.model_copy(update={"stage": spec.stage.model_copy(update={"optim": o})})
            for spec, o in zip(specs, plain, strict=True)
        ]
    fused, solo = tmp_path / "fused", tmp_path / "solo"
    results = list(whole(fuse(specs, fused, pack)))
    for spec, result in zip(specs, results, strict=True):
        expected = alone(spec, solo, pack)
        assert result.metrics == pytest.approx(expected.metrics, rel=2e-3)
        assert (result.nimg, result.flops_per_image, result.exact) == (END, expected.flops_per_image, True)
        ours, theirs = metrics(fused, spec), metrics(solo, spec)
        assert [event["nimg"] for event in ours] == [event["nimg"] for event in theirs]
        for one, other in zip(ours[:3], theirs[:3], strict=True):  # before rounding differences have grown
            assert one.keys() == other.keys()
            for name in one.keys() - {"time", "images_per_second", "attempt", "event"}:  # loss, gradient norm, rate
                assert one[name] == pytest.approx(other[name], rel=2e-5), name
        same(spec, fused, solo, 3 * BATCH, tolerance=1e-5)
        same(spec, fused, solo)


@pytest.mark.slow
def test_fine_tuning_starts_from_each_stages_own_parent(pack: Pack, tmp_path: Path) -> None:
    parents = [stage(seed=seed, labels=False) for seed in (0, 1)]
    list(whole(fuse(parents, tmp_path / "fused", pack)))
    child = {"kind": "finetune", "parent": "pretrain", "parent_nimg": END, "corruption": CorruptionConfig(r_t0=0.25)}
    specs = [stage(seed=parent.seed, parent_key=parent.key, **child) for parent in parents]
    list(whole(fuse(specs, tmp_path / "fused", pack)))
    (tmp_path / "solo" / "stages").mkdir(parents=True)
    for parent, spec in zip(parents, specs, strict=True):
        (tmp_path / "solo" / "stages" / parent.key).symlink_to(tmp_path / "fused" / "stages" / parent.key)
        alone(spec, tmp_path / "solo", pack)
        same(spec, tmp_path / "fused", tmp_path / "solo")


@pytest.mark.slow
def test_bf16_autocast_is_fused_too(pack: Pack, tmp_path: Path) -> None:
    specs = [stage(precision="bf16", corruption=corruption(r_t0)) for r_t0 in (0.5, 0.25)]
    for spec, result in zip(specs, whole(fuse(specs, tmp_path / "fused", pack)), strict=True):
        assert result.metrics == pytest.approx(alone(spec, tmp_path / "solo", pack).metrics, rel=0.05)


@pytest.mark.slow
def test_a_diverging_stage_ends_and_the_others_continue(pack: Pack, tmp_path: Path) -> None:
    good = [stage(seed=seed) for seed in (0, 1)]
    lost = stage(seed=2, optim=optim(lr_per_256=1e30, clip_norm=1e30))
    endings = fuse([good[0], lost, good[1]], tmp_path / "fused", pack)
    assert isinstance(endings[lost.key], NonFiniteError)
    assert not RunDir(tmp_path / "fused", lost.key).snapshot(END).exists()
    for spec in good:
        assert isinstance(endings[spec.key], TrainResult)
        alone(spec, tmp_path / "solo", pack)
        same(spec, tmp_path / "fused", tmp_path / "solo")


class Killed(BaseException):
    """Raised instead of killing the process, so that nothing is saved."""


def after(steps: int, error: type[BaseException] | None = None) -> Callable[[str], bool]:
    """A ``stop`` that is called for each stage before each step; after ``steps`` steps it is true, or raises ``error``."""
    calls: dict[str, int] = {}

    def stop(key: str) -> bool:
        calls[key] = calls.get(key, -1) + 1
        if calls[key] < steps:
            return False
        if error is not None:
            raise error
        return True

    return stop


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, Killed])
def test_an_interrupted_fused_run_resumes_to_the_same_bits(
    error: type[BaseException] | None, pack: Pack, tmp_path: Path
) -> None:
    specs = [stage(**fields) for fields in OWN["r_t0"]]
    list(whole(fuse(specs, tmp_path / "whole", pack)))
    for steps in (7, 9):
        with contextlib.suppress(Killed):
            endings = fuse(specs, tmp_path / "torn", pack, after(steps, error))
            assert all(isinstance(ending, Stopped) for ending in endings.values())
    for result in whole(fuse(specs, tmp_path / "torn", pack)):
        assert result.exact
        assert result.resumed_from == (5 * BATCH if steps < 8 else 10 * BATCH) or error is None
    for spec in specs:
        same(spec, tmp_path / "torn", tmp_path / "whole", tolerance=0)
        assert not list(RunDir(tmp_path / "torn", spec.key).path.glob("attempt-3/checkpoints/*.safetensors"))


@pytest.mark.slow
def test_a_stage_that_resumes_outside_or_inside_a_fused_group_records_the_change(pack: Pack, tmp_path: Path) -> None:
    specs = [stage(seed=seed) for seed in (0, 1)]
    fuse(specs, tmp_path / "mixed", pack, after(7))
    result = alone(specs[0], tmp_path / "mixed", pack)
    assert result.resumed_from == 7 * BATCH
    assert not result.exact
    messages = [e["message"] for e in RunDir(tmp_path / "mixed", specs[0].key).events() if e["event"] == "warning"]
    assert "fused 1 of 2 -> None" in messages[0]
    stopped_alone(specs[0], tmp_path / "back", pack)
    stopped_alone(specs[1], tmp_path / "back", pack)
    for spec, back in zip(specs, whole(fuse(specs, tmp_path / "back", pack)), strict=True):
        assert back.resumed_from == 7 * BATCH
        assert not back.exact
        alone(spec, tmp_path / "solo", pack)
        same(spec, tmp_path / "back", tmp_path / "solo")
    same(specs[0], tmp_path / "mixed", tmp_path / "solo")


@pytest.mark.slow
def test_one_stage_stops_and_the_others_continue(pack: Pack, tmp_path: Path) -> None:
    specs = [stage(seed=seed) for seed in (0, 1, 2)]
    one = after(7)
    endings = fuse(specs, tmp_path, pack, lambda key: key == specs[1].key and one(key))
    assert isinstance(endings[specs[1].key], Stopped)
    assert [isinstance(endings[spec.key], TrainResult) for spec in specs] == [True, False, True]
    assert alone(specs[1], tmp_path, pack).resumed_from == 7 * BATCH


@pytest.mark.slow
def test_only_the_largest_group_of_stages_with_equal_progress_is_fused(pack: Pack, tmp_path: Path) -> None:
    specs = [stage(seed=seed) for seed in (0, 1, 2, 3)]
    alone(specs[3], tmp_path, pack)
    stopped_alone(specs[0], tmp_path, pack)
    endings = fuse(specs, tmp_path, pack)
    assert [*endings] == [specs[1].key, specs[2].key]
    assert all(isinstance(ending, TrainResult) for ending in endings.values())


def test_only_stages_of_one_shape_are_fused(pack: Pack, tmp_path: Path) -> None:
    one = stage()
    for fields in (
        {"labels": False},
        {"nimg": 2 * END},
        {"precision": "bf16"},
        {"corruption": CorruptionConfig(r_t0=0.5, mask_ratio=0.5)},
        {"optim": optim(ema=False)},
        {"optim": optim(first_moment="fp32")},
    ):
        assert not may_fuse(one, stage(**fields)), fields
    assert all(may_fuse(one, stage(**fields)) for group in OWN.values() for fields in group)
    for resources in (Resources(devices=2, device="cpu"), Resources(compile=True, device="cpu")):
        other = one.model_copy(update={"resources": resources})
        assert not may_fuse(other, other)
    with pytest.raises(ValueError, match="different shapes"):
        fuse([one, stage(labels=False)], tmp_path, pack)


def test_the_error_names_an_operation_without_a_rule() -> None:
    weight = stack_for({"w": torch.zeros(2, 3, 3)}, Rows([1, 1], torch.device("cpu")))["w"]
    with pytest.raises(NotImplementedError, match=r"exp has no rule for the weights of several models"):
        weight.exp()
    with pytest.raises(ValueError, match="3 rows were given to models that have"):
        F.linear(torch.zeros(3, 3), weight)
