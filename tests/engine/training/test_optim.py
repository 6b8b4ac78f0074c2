"""Clipping, AdamW, the learning rate and the weight average equal the official ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine.golden_files import Arrays, arrays
from torch import nn

from umd_bench.config.trial.train_stage import CorruptionConfig, OptimConfig, TrainStage
from umd_bench.engine.training import optim
from umd_bench.engine.training.ema import WeightAverage
from umd_bench.engine.training.optim import (
    build_optimizer,
    clip_grad_norm,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)

GOLDEN = arrays("adamw_unit")
# Official parameter -> one of our parameters, which has weight decay if and only if the official one has it.
NAMES = {
    "a/kernel": "a.weight",
    "a/bias": "a.bias",
    "ln/scale": "ln.weight",
    "ln/bias": "ln.bias",
    "cls": "cls_token",
    "pos_embedding": "pos_embed",
}


class Leaves(nn.Module):
    """A model without a forward pass: only the parameters of ``NAMES``, with the given values."""

    def __init__(self, values: Arrays) -> None:
        super().__init__()
        self.a, self.ln = nn.Module(), nn.Module()
        for official, name in NAMES.items():
            owner, leaf = self.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
            owner.register_parameter(leaf, nn.Parameter(torch.from_numpy(values[official].copy())))

    def value(self, official: str) -> nn.Parameter:
        return self.get_parameter(NAMES[official])


def part(prefix: str) -> Arrays:
    return {name: GOLDEN[f"{prefix}/{name}"] for name in NAMES}


def take_step(model: Leaves, optimizer: torch.optim.Optimizer, step: int) -> float:
    for name, gradient in part(f"g{step}").items():
        model.value(name).grad = torch.from_numpy(gradient.copy())
    norm = clip_grad_norm(model, 1.0)
    set_learning_rate(optimizer, float(GOLDEN[f"lr{step}"]))
    optimizer.step()
    return norm.item()


def largest_error(model: Leaves, expected: Arrays) -> float:
    return max(np.abs(model.value(name).detach().numpy() - value).max() for name, value in expected.items())


@pytest.mark.parametrize("size", [5, 20, 1 << 18], ids=lambda n: f"{n} numbers at a time")
def test_six_steps_with_the_bf16_moment_are_the_official_ones_and_the_moment_is_equal_to_the_bit(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "_PART", size)
    model = Leaves(part("p0"))
    optimizer = build_optimizer(model, OptimConfig(first_moment="bf16"))
    for step in range(6):
        assert take_step(model, optimizer, step) == pytest.approx(float(GOLDEN[f"gnorm{step}"]), rel=1e-6)
        assert largest_error(model, part(f"eager/p{step + 1}")) < 3e-7
    for name in NAMES:
        state = optimizer.state[model.value(name)]
        assert state["exp_avg"].dtype == torch.bfloat16
        np.testing.assert_array_equal(state["exp_avg"].float().numpy(), part("eager/mu_final_bf16_as_f32")[name])
        np.testing.assert_allclose(state["exp_avg_sq"].numpy(), part("eager/nu_final")[name], rtol=1e-6)


def test_six_steps_with_the_fp32_moment_differ_from_the_official_ones_by_the_rounding_of_the_moment() -> None:
    model = Leaves(part("p0"))
    optimizer = build_optimizer(model, OptimConfig())
    for step in range(6):
        take_step(model, optimizer, step)
    # 3.8e-2 is the sum of the six rates, about the farthest that Adam can move. bf16 stores the moment to 2^-8; 2^-6 leaves a
    # margin.
    assert 1e-6 < largest_error(model, part("eager/p6")) < 3.8e-2 / 2**6
    for name in NAMES:
        np.testing.assert_allclose(
            optimizer.state[model.value(name)]["exp_avg_sq"].numpy(), part("eager/nu_final")[name], rtol=2e-6
        )


def test_the_fp32_moment_follows_the_equations_in_float64() -> None:
    model = Leaves(part("p0"))
    optimizer = build_optimizer(model, OptimConfig())
    p, m, v = ({name: value.astype(np.float64) * keep for name, value in part("p0").items()} for keep in (1, 0, 0))
    for step in range(6):
        take_step(model, optimizer, step)
        g = {name: value.astype(np.float64) for name, value in part(f"g{step}").items()}
        norm = np.sqrt(sum((value**2).sum() for value in g.values()))
        for name in NAMES:
            clipped = g[name] / max(1, norm)
            m[name], v[name] = 0.9 * m[name] + 0.1 * clipped, 0.95 * v[name] + 0.05 * clipped**2
            update = m[name] / (1 - 0.9 ** (step + 1)) / (np.sqrt(v[name] / (1 - 0.95 ** (step + 1))) + 1e-8)
            decay = 0.05 if name in ("a/kernel", "ln/scale", "pos_embedding") else 0
            p[name] -= float(GOLDEN[f"lr{step}"]) * (update + decay * p[name])
    assert largest_error(model, p) < 1e-6


@pytest.mark.parametrize("first_moment", ["bf16", "fp32"])
def test_restored_moments_continue_to_the_same_bits(first_moment: str) -> None:
    whole, halves = Leaves(part("p0")), Leaves(part("p0"))
    config = OptimConfig(first_moment=first_moment)
    optimizer, first = build_optimizer(whole, config), build_optimizer(halves, config)
    for step in range(6):
        take_step(whole, optimizer, step)
    for step in range(3):
        take_step(halves, first, step)
    second = build_optimizer(halves, config)
    restore_optimizer(second, halves, {name: value.clone() for name, value in optimizer_tensors(first, halves).items()})
    for step in range(3, 6):
        take_step(halves, second, step)
    assert all(torch.equal(whole.value(name), halves.value(name)) for name in NAMES)


def test_a_small_gradient_is_not_scaled_and_a_large_one_is_scaled_to_the_norm() -> None:
    model = nn.Linear(3, 1, bias=False)
    for length, clipped in ((0.5, 0.5), (1.0, 1.0), (7.0, 1.0), (0.0, 0.0)):
        model.weight.grad = torch.tensor([[length, 0.0, 0.0]])
        assert clip_grad_norm(model, 1.0).item() == length
        assert model.weight.grad.norm().item() == clipped


@pytest.mark.parametrize("run", ["umd_b4", "mae_readme", "finetune"])
def test_the_learning_rate_is_the_official_one(run: str) -> None:
    golden = arrays("lr_schedules")
    total, warmup, peak = golden[f"{run}/total_warmup_peak"].tolist()
    stage = training(nimg=int(total) * 8, warmup_nimg=int(warmup) * 8, lr_per_256=peak * 256 / 8)
    for step, expected in zip(golden[f"{run}/steps"].tolist(), golden[f"{run}/lr"].tolist(), strict=True):
        assert learning_rate(step * 8, stage) == pytest.approx(expected, rel=2e-5, abs=1e-12)


def test_the_first_rate_is_zero_under_a_warm_up_and_the_peak_without_one() -> None:
    assert learning_rate(0, training(nimg=800, warmup_nimg=80)) == 0
    assert learning_rate(0, training(nimg=800, warmup_nimg=0)) == training(nimg=800).lr_peak
    assert 0 < learning_rate(792, training(nimg=800, warmup_nimg=80)) < 1e-3 * training(nimg=800).lr_peak


def test_the_average_starts_as_a_copy_and_follows_its_decay() -> None:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, decay=0.75)
    nn.init.constant_(model.weight, 5.0)
    assert (average.weights["weight"] == 1).all()
    average.update()
    assert (average.weights["weight"] == 2).all()
    assert (model.weight == 5).all()


def training(nimg: int, *, warmup_nimg: int = 0, lr_per_256: float = 1e-3) -> TrainStage:
    optim = OptimConfig(warmup_nimg=warmup_nimg, lr_per_256=lr_per_256)
    return TrainStage(kind="pretrain", nimg=nimg, batch=8, corruption=CorruptionConfig(r_t0=0), optim=optim)
