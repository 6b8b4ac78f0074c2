"""Loss and gradient of the objective equal the official ones, and DiT and MAE are special cases of the objective."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from engine.golden_files import HEADS, Arrays, arrays, images, tiny_model, worst
from torch import Tensor

from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.train_stage import CorruptionConfig, OptimConfig, TrainStage
from umd_bench.engine.diffusion.corruption import LABEL_DROP, Noise, corrupt, draw_noise
from umd_bench.engine.diffusion.noise_process import PREDICTIONS, NoiseProcess
from umd_bench.engine.diffusion.objective import LOSS_WEIGHTS, Losses, umd_loss
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.published.small_vision_conversion import from_official, to_official
from umd_bench.engine.training.optim import build_optimizer, clip_grad_norm, set_learning_rate

PROCESS = NoiseProcess(NoiseConfig())
METHODS = {"umd": "adaln1_nc0", "mae": "adaln0_nc0", "dit": "adaln1_nc0", "maskdit": "adaln1_nc0"}


def of(corruption: CorruptionConfig, **fields: object) -> TrainStage:
    """A stage of one batch of 8 images."""
    return TrainStage.model_validate({"kind": "pretrain", "nimg": 8, "batch": 8, "corruption": corruption, **fields})


def official_noise(golden: Arrays, suffix: str = "") -> Noise:
    """The official draws, noised rows first, then clean rows.

    Entries that the official code did not draw are 1 (t), 9 (eps) and NaN (mask noise). No label is dropped.
    """
    B, n_clean = len(golden["image"]), int(golden["n_no_noise"])
    n_noised = B - n_clean
    noise = Noise(
        torch.ones(B).double(), torch.full((B, 3, 16, 16), 9.0), torch.full((B, 16), torch.nan), torch.zeros(B).bool()
    )
    noise.t[:n_noised] = torch.from_numpy(golden[f"t{suffix}"][:, 0]).double() + 1
    noise.eps[:n_noised] = images(golden[f"noise{suffix}"])
    for rows, name in ((slice(None, n_noised), "mask_noise_noise"), (slice(n_noised, None), "mask_noise_nonoise")):
        if name + suffix in golden:
            noise.mask_noise[rows] = torch.from_numpy(golden[name + suffix])
    return noise


def official_loss(model: AutoEncoder, golden: Arrays, suffix: str = "") -> Losses:
    r_t0, mask_ratio, mask_ratio_t0 = golden["config"].tolist()
    stage = of(CorruptionConfig(r_t0=r_t0, mask_ratio=mask_ratio, mask_ratio_t0=mask_ratio_t0))
    assert stage.n_clean == int(golden["n_no_noise"])
    return umd_loss(model, images(golden["image"]), official_noise(golden, suffix), stage, PROCESS)


def gradients(model: AutoEncoder) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_norms_are_the_official_ones(method: str) -> None:
    golden, model = arrays(f"loss_{method}"), tiny_model(METHODS[method])
    loss = official_loss(model, golden).loss
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-6)
    norm = torch.stack([g.norm() for g in gradients(model).values()]).norm()
    assert norm.item() == pytest.approx(float(golden["grad_norm"]), rel=2e-6)
    for name, gradient in to_official(gradients(model), HEADS).items():
        # The gradient of the keys' bias is 0 up to rounding, since softmax does not depend on this bias.
        expected = float(golden[f"gnorm/{name}"])
        assert np.linalg.norm(gradient) == pytest.approx(expected, rel=1e-5, abs=1e-8), name


def test_every_gradient_is_the_official_one() -> None:
    golden, model = arrays("loss_umd"), tiny_model("adaln1_nc0")
    official_loss(model, golden).loss.backward()
    for name, gradient in to_official(gradients(model), HEADS).items():
        expected = golden[f"grad/{name}"]
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5 * np.abs(expected).max() + 1e-8, err_msg=name)


@pytest.mark.parametrize("first_moment", ["bf16", "fp32"])
def test_three_steps_end_at_the_official_weights(first_moment: str) -> None:
    golden, model = arrays("loss_umd_3steps"), tiny_model("adaln1_nc0")
    decay, beta1, beta2, clip, _ = golden["hparams"].tolist()
    config = OptimConfig(weight_decay=decay, beta1=beta1, beta2=beta2, clip_norm=clip, first_moment=first_moment)
    optimizer = build_optimizer(model, config)
    tolerance = 2e-5 if first_moment == "bf16" else 1e-3  # the official moment is bf16, so steps with an fp32 moment differ
    for step in range(3):
        loss = official_loss(model, golden, f"_s{step}").loss
        assert loss.item() == pytest.approx(float(golden[f"loss_s{step}"]), rel=tolerance)
        optimizer.zero_grad()
        loss.backward()
        assert clip_grad_norm(model, clip).item() == pytest.approx(float(golden[f"grad_norm_s{step}"]), rel=tolerance)
        set_learning_rate(optimizer, float(golden[f"lr_s{step}"]))
        optimizer.step()
    expected = from_official({k.removeprefix("final_params/"): v for k, v in golden.items() if k.startswith("final_params/")})
    for name, parameter in model.named_parameters():
        if name.endswith("qkv.bias"):
            # Only the queries' part is compared. Adam takes full steps along the keys' part, whose gradient is only rounding.
            parameter, expected[name] = parameter.chunk(3)[0], expected[name].chunk(3)[0]
        # The weights moved by up to 0.015. The compiled official step rounds its bf16 moment elsewhere than the eager one.
        assert (parameter - expected[name]).abs().max() < 5e-4, name
        assert (parameter - expected[name]).square().mean().sqrt() < 4e-5, name


def test_without_clean_images_and_masks_the_objective_is_that_of_dit() -> None:
    model, x_0, noise = tiny_model("adaln1_nc0"), *batch()
    out = model(PROCESS.q_sample(x_0, noise.t, noise.eps), noise.t)
    dit = ((out.target - noise.eps).square().mean() + (out.x_0 - x_0).square().mean()) / 2
    assert_equal_in_loss_and_gradient(model, dit, umd_loss(model, x_0, noise, of(CorruptionConfig(r_t0=0)), PROCESS).loss)


@pytest.mark.parametrize("schedule", ["cosine", "flow-uniform"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("loss_weight", LOSS_WEIGHTS)
def test_the_trial_chooses_the_target_and_its_weight(loss_weight: str, prediction: str, schedule: str) -> None:
    """The objective is written out again: x_0 at removed patches with weight 1, the target at visible ones with t's weight."""
    process = NoiseProcess(NoiseConfig(schedule=schedule, prediction=prediction))
    model, x_0, noise = tiny_model("adaln1_nc0"), *batch()
    stage = of(CorruptionConfig(r_t0=0, mask_ratio=0.5), loss_weight=loss_weight, min_snr_gamma=3.0)
    out = model(process.q_sample(x_0, noise.t, noise.eps), noise.t, mask_noise=noise.mask_noise, mask_ratio=0.5)
    hidden = out.mask.view(8, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).expand_as(x_0)
    weight = process.min_snr(noise.t, 3.0).float() if loss_weight == "min_snr" else torch.ones(8)
    target_error = (out.target - process.target(x_0, noise.t, noise.eps)).square()
    target_loss = (weight.view(-1, 1, 1, 1) * target_error * (1 - hidden)).sum() / (1 - hidden).sum()
    expected = (target_loss + ((out.x_0 - x_0).square() * hidden).sum() / hidden.sum()) / 2
    assert_equal_in_loss_and_gradient(model, expected, umd_loss(model, x_0, noise, stage, process).loss)


def test_with_clean_images_only_the_objective_is_that_of_mae() -> None:
    model, x_0, noise = tiny_model("adaln0_nc0"), *batch()
    zero = torch.zeros_like(noise.t)
    out = model(x_0, zero, mask_noise=noise.mask_noise, mask_ratio=0.75)
    removed = out.mask.view(8, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).expand_as(x_0) > 0
    mae = (out.x_0 - x_0)[removed].square().mean()
    stage = of(CorruptionConfig(r_t0=1, mask_ratio=0.375, mask_ratio_t0=0.75))
    assert_equal_in_loss_and_gradient(model, mae, umd_loss(model, x_0, noise, stage, PROCESS).loss)


def test_clean_and_noised_images_are_weighted_by_their_numbers() -> None:
    model, x_0, noise = tiny_model("adaln1_nc0"), *batch()
    losses = umd_loss(model, x_0, noise, of(CorruptionConfig(r_t0=0.25, mask_ratio=0.5)), PROCESS)
    assert losses.loss.item() == pytest.approx(0.75 * losses.loss_t.item() + 0.25 * losses.loss_t0.item())


def test_the_last_rows_are_clean_and_their_number_does_not_change_the_other_rows() -> None:
    x_0, noise = batch()
    x_t, t = corrupt(x_0, noise, 3, PROCESS)
    fewer_x_t, fewer_t = corrupt(x_0, noise, 1, PROCESS)
    assert t[5:].tolist() == [0, 0, 0]
    assert torch.equal(x_t[5:], x_0[5:])
    assert torch.equal(t[:5], fewer_t[:5])
    assert torch.equal(x_t[:5], fewer_x_t[:5])
    assert torch.equal(corrupt(x_0, noise, 0, PROCESS)[1], noise.t)


def test_only_noised_images_get_their_label_and_a_dropped_label_is_null() -> None:
    model, x_0, noise = tiny_model("adaln1_nc10"), *batch()
    stage = of(CorruptionConfig(r_t0=0.25, mask_ratio=0.5))
    label = torch.arange(8)

    def loss(label: Tensor | None, drop: Tensor) -> Losses:
        return umd_loss(model, x_0, noise._replace(drop_label=drop), stage, PROCESS, label)

    none, some = torch.zeros(8).bool(), torch.arange(8) < 2
    assert loss(label, ~none).loss == loss(None, none).loss
    assert loss(label, some).loss == loss(torch.where(some, 10, label), none).loss
    assert loss(label, none).loss_t != loss(None, none).loss_t
    assert loss(label, none).loss_t0 == loss(None, none).loss_t0


def test_draws_cover_their_ranges_and_depend_on_the_generator_alone() -> None:
    x_0 = torch.zeros(4000, 1, 2, 2)
    twenty = NoiseProcess(NoiseConfig(timesteps=20))
    noise = draw_noise(x_0, 16, twenty, torch.Generator().manual_seed(1))
    times, counts = noise.t.unique(return_counts=True)
    assert times.tolist() == list(range(1, 21))
    assert (counts - 200).abs().max() < 5 * math.sqrt(200)  # five standard deviations of a uniform draw's counts
    assert noise.eps.std().item() == pytest.approx(1, abs=0.02)
    assert noise.mask_noise.shape == (4000, 16)
    assert noise.drop_label.float().mean().item() == pytest.approx(LABEL_DROP, abs=4 * math.sqrt(0.09 / 4000))
    again = draw_noise(x_0 + 5, 16, twenty, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(noise, again, strict=True))


def batch() -> tuple[Tensor, Noise]:
    generator = torch.Generator().manual_seed(3)
    x_0 = torch.rand(8, 3, 16, 16, generator=generator) * 2 - 1
    return x_0, draw_noise(x_0, 16, PROCESS, generator)


def assert_equal_in_loss_and_gradient(model: AutoEncoder, expected: Tensor, actual: Tensor) -> None:
    assert actual.item() == pytest.approx(expected.item(), rel=1e-6)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected_gradients = torch.autograd.grad(expected, parameters, allow_unused=True, materialize_grads=True)
    actual_gradients = torch.autograd.grad(actual, parameters, allow_unused=True, materialize_grads=True)
    for name, wanted, found in zip(names, expected_gradients, actual_gradients, strict=True):
        if wanted.abs().max() > 1e-7:
            assert worst(found, wanted) < 2e-5 or "qkv.bias" in name, name
