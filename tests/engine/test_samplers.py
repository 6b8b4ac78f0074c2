"""Samplers take the official steps, and a sample does not depend on its batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine.golden_files import arrays, images, tiny_model, worst
from torch import Tensor

from umd_bench.config.errors import FieldError
from umd_bench.config.trial import generate_stage
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.samplers import SAMPLERS, Denoiser, Sampler, ddim, generate, official_times, sample_noise
from umd_bench.engine.training.compiling import compile_model, own_graphs

COSINE = NoiseProcess(NoiseConfig())


def config(**fields: object) -> GenerateStage:
    return GenerateStage.model_validate({"parent": "p", "n": 2, "steps": 25, "extractor": "none", **fields})


@pytest.mark.parametrize("steps", [62, 125, 250])
def test_the_times_of_ddim_official_equal_the_official_times(steps: int) -> None:
    golden = arrays("ddim_coefs")
    times = np.array(official_times(COSINE, steps)) - 1
    np.testing.assert_array_equal(times[:-1], golden[f"t_curr_{steps}"])
    np.testing.assert_array_equal(times[1:], golden[f"t_next_{steps}"])


@pytest.mark.parametrize("steps", [1, 2, 25, 125, 250, 500, 1000])
def test_evenly_spaced_times_are_the_official_ones_if_steps_divide_timesteps(steps: int) -> None:
    assert COSINE.times(steps) == official_times(COSINE, steps)


@pytest.mark.parametrize("schedule", ["cosine", "flow-uniform"])
@pytest.mark.parametrize(("timesteps", "steps"), [(1000, 62), (1000, 7), (1000, 999), (10, 10), (2, 1)])
def test_evenly_spaced_times_are_all_different(timesteps: int, steps: int, schedule: str) -> None:
    times = NoiseProcess(NoiseConfig(schedule=schedule, timesteps=timesteps)).times(steps)
    assert len(set(times[:-1])) == steps
    assert times == sorted(times, reverse=True)
    assert times[0] == timesteps
    assert times[-1] == 1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [62, 125, 250])
def test_the_coefficients_of_every_step_are_the_official_ones(schedule: str, steps: int) -> None:
    """The coefficients are measured: eps = 0 gives sqrt(ab_prev / ab) x, added noise gives sigma, eps = 1 the direction."""
    golden, noise_schedule = arrays("ddim_coefs"), NoiseProcess(NoiseConfig(schedule=schedule))
    ab, ab_prev, sigma, direction = (
        golden[f"{schedule}/{steps}/{name}"] for name in ("alpha_bar", "alpha_bar_prev", "sigma", "dir_coef")
    )
    times = golden[f"t_curr_{steps}"] + 1
    alpha, _ = noise_schedule.path(torch.from_numpy(times))
    np.testing.assert_allclose(alpha.square().numpy(), ab, rtol=1e-12)

    def one_step(k: int, eps: float, z: float) -> float:
        """Predict ``eps`` and add the noise ``z`` in step k only. Returns the step's output over its input, and its input."""
        seen: list[Tensor] = []

        def denoise(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            seen.append(x)
            return x, torch.full_like(x, eps if len(seen) == k + 1 else 0.0)

        moving = [s > 0 for s in sigma]
        draws = [torch.full((1, 1, 1, 1), z if i == k else 0.0, dtype=torch.float64) for i in range(steps) if moving[i]]
        noise = iter([torch.ones(1, 1, 1, 1, dtype=torch.float64), *draws])
        SAMPLERS["ddim-official"].draw(denoise, noise, noise_schedule, config(steps=steps, clip=False))
        return float(seen[k + 1] / seen[k]), float(seen[k])

    for k in (0, 1, steps // 2, steps - 4, steps - 1):
        scale = np.sqrt(ab_prev[k] / ab[k])
        plain, x = one_step(k, 0.0, 0.0)
        assert plain == pytest.approx(scale, rel=1e-9)
        assert (one_step(k, 0.0, 1.0)[0] - plain) * x == pytest.approx(sigma[k], rel=1e-7, abs=1e-12)
        expected = direction[k] - np.sqrt(ab_prev[k] * (1 - ab[k]) / ab[k])
        assert (one_step(k, 1.0, 0.0)[0] - plain) * x == pytest.approx(expected, rel=1e-6, abs=1e-9)


def walk(name: str, schedule: str, denoise: Denoiser, *, clip: bool, tolerance: float) -> None:
    """Take every recorded step, and compare the times, the inputs of the model and the final sample."""
    golden = arrays(name)
    shown: list[tuple[Tensor, float]] = []

    def recorded(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        shown.append((x, t))
        return denoise(x, t)

    noise = iter([images(golden["init_noise"]), *map(images, golden["step_noise"])])
    steps = len(golden["step_noise"])
    final = SAMPLERS["ddim-official"].draw(
        recorded, noise, NoiseProcess(NoiseConfig(schedule=schedule)), config(steps=steps, clip=clip)
    )
    assert [t - 1 for _, t in shown] == [*golden["t_curr"].tolist(), int(golden["t_next"][-1])]
    for (x, _), expected in zip(shown[1:], golden["x_after_step"], strict=True):
        assert worst(x, images(expected)) < tolerance
    assert worst(final, images(golden["final"])) < tolerance


def test_every_toy_step_with_clipping_is_the_official_one() -> None:
    walk("ddim_toy_cosine_clip_125", "cosine", lambda x, t: (x, 0.1 * x), clip=True, tolerance=1e-5)


def test_every_toy_step_without_clipping_is_the_official_one() -> None:
    toy: Denoiser = lambda x, t: (x, (0.3 + 0.6 * (t - 1) / 1000) * x)  # noqa: E731
    walk("ddim_toyt_linear_noclip_250", "linear", toy, clip=False, tolerance=1e-5)


def test_every_step_of_the_tiny_model_is_the_official_one() -> None:
    golden, model = arrays("ddim_model_adaln1_nc10_eps_cond"), tiny_model("adaln1_nc10")
    label = torch.from_numpy(golden["y"]).long()

    def denoise(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            out = model(x, torch.full((2,), t), label=label)
        return out.x_0, out.target

    walk("ddim_model_adaln1_nc10_eps_cond", "cosine", denoise, clip=True, tolerance=5e-5)


def test_guidance_is_the_official_one() -> None:
    given, model, expected = arrays("model_inputs"), tiny_model("adaln1_nc10"), arrays("fwd_adaln1_nc10")["pred_cfg1.5"]
    x, label = images(given["image"]), torch.from_numpy(given["y"]).long()
    for row, t in enumerate(given["t"][:, 0].tolist()):
        found = seen_by_a_sampler(model, x[row : row + 1], t, label[row : row + 1], cfg_scale=1.5)
        assert worst(found, images(expected[row : row + 1])) < 5e-5


def seen_by_a_sampler(model: Callable[..., object], x: Tensor, t: int, label: Tensor, cfg_scale: float) -> Tensor:
    """Both guided predictions for x at time t, as a sampler receives them."""
    found: list[Tensor] = []

    def record(denoise: Denoiser, noise: object, schedule: object, config: object) -> Tensor:
        found.extend(denoise(x, t))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SAMPLERS, "euler", Sampler(record))
        stage = config(sampler="euler", cfg_scale=cfg_scale)
        generate(model, COSINE, stage, label=label, indices=[0], seed=0)  # type: ignore[arg-type]
    return torch.cat(found, dim=1)


def test_guidance_doubles_the_rows_of_each_pass() -> None:
    model, rows = tiny_model("adaln1_nc10"), []
    model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    for cfg_scale, expected in ((1.0, 3), (2.0, 6), (0.0, 6)):
        rows.clear()
        generate(model, COSINE, config(steps=4, cfg_scale=cfg_scale), label=torch.arange(3), indices=range(3), seed=0)
        assert rows == [expected] * 5


def test_the_configuration_lists_the_samplers() -> None:
    assert sorted(SAMPLERS) == sorted(generate_stage.SAMPLERS)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_draws_the_same_sample_in_any_batch(sampler: str) -> None:
    model, stage = tiny_model("adaln1_nc10"), config(sampler=sampler, steps=5, cfg_scale=1.5)
    label = torch.tensor([1, 2, 3])
    together = generate(model, COSINE, stage, label=label, indices=[4, 5, 6], seed=7)
    alone = generate(model, COSINE, stage, label=label[2:], indices=[6], seed=7)
    assert together.shape == (3, 3, 16, 16)
    assert together.abs().max() <= 1
    torch.testing.assert_close(together[2:], alone, rtol=1e-3, atol=1e-3)
    other = generate(model, COSINE, stage, label=label, indices=[4, 5, 6], seed=8)
    assert (together - other).abs().max() > 0.1


def test_guidance_acts_only_within_its_interval() -> None:
    model, rows = tiny_model("adaln1_nc10"), []
    model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    label, stage = torch.arange(3), config(steps=4, cfg_scale=3.0)

    def drawn(**fields: object) -> Tensor:
        rows.clear()
        return generate(model, COSINE, stage.model_copy(update=fields), label=label, indices=range(3), seed=0)

    inner = drawn(cfg_interval=(500.0, 750.0))  # the times are 1000, 750, 500, 250 and 1
    assert rows == [3, 6, 6, 3, 3]
    assert not torch.equal(inner, drawn())
    assert torch.equal(drawn(cfg_interval=(2.0, 100.0)), drawn(cfg_scale=1.0))
    assert torch.equal(drawn(cfg_interval=(0.0, 1000.0)), drawn())


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_calls_the_model_as_often_as_its_table_row_states(sampler: str) -> None:
    calls: list[float] = []

    def denoise(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        calls.append(t)
        return x, 0.1 * x

    noise = sample_noise(0, [0], (1, 2, 2), torch.device("cpu"))
    SAMPLERS[sampler].draw(denoise, noise, COSINE, config(sampler=sampler, steps=10))
    assert len(calls) == SAMPLERS[sampler].calls(10)
    assert (calls[0], calls[-1]) == (1000, 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_configuration_allows_eta_for_exactly_the_samplers_that_take_it(name: str) -> None:
    draw = SAMPLERS[name].draw
    assert config(sampler=name).is_ddim == (getattr(draw, "func", draw) is ddim)


def test_the_noise_of_a_sample_depends_on_its_index_and_not_on_the_batch() -> None:
    shape, cpu = (1, 2, 2), torch.device("cpu")
    one, other = sample_noise(3, [0, 1], shape, cpu), sample_noise(3, [1], shape, cpu)
    for _ in range(3):
        assert torch.equal(next(one)[1], next(other)[0])
    a, b = next(one), next(one)
    assert not torch.equal(a, b)
    assert not torch.equal(a[0], a[1])


@pytest.mark.parametrize("schedule", ["cosine", "edm", "flow-shifted"])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_returns_the_image_of_a_perfect_model(sampler: str, schedule: str) -> None:
    process = NoiseProcess(NoiseConfig(schedule=schedule))
    truth = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def perfect(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = process.at(t)
        return truth, (x - alpha * truth) / sigma

    for eta in (0.0, 0.5, 1.0) if sampler.startswith("ddim") else (None,):
        noise = sample_noise(0, [0, 1], (1, 4, 4), torch.device("cpu"))
        final = SAMPLERS[sampler].draw(perfect, noise, process, config(sampler=sampler, eta=eta))
        torch.testing.assert_close(final, truth, rtol=1e-4, atol=1e-4)


def test_eta_zero_uses_only_the_starting_noise() -> None:
    noise = iter([torch.ones(1, 1, 2, 2)])
    SAMPLERS["ddim"].draw(lambda x, t: (x, 0.1 * x), noise, COSINE, config(eta=0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"sampler": "dimm"},
            "sampler = 'dimm' is not accepted: expected one of ddim, ddim-official, ddim-x0, dpmpp-2m, euler, heun",
        ),
        ({"steps": 1001}, "stages.generate.steps = 1001 is not accepted: expected 1..1000"),
        ({"cfg_scale": 2.0}, "stages.generate.cfg_scale = 2.0 is not accepted: expected 1"),
        ({"cfg_interval": [5, 1001]}, r"stages.generate.cfg_interval = \[5.0, 1001.0\] is not accepted: expected two times"),
    ],
)
def test_settings_that_cannot_be_sampled_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        generate(tiny_model("adaln1_nc10"), COSINE, config(**fields), label=None, indices=[0], seed=0)


def test_only_the_model_runs_in_bf16_and_samples_are_nearly_the_same() -> None:
    model = tiny_model("adaln1_nc10")
    label = torch.tensor([0, 1])
    draws = [
        generate(
            model, COSINE, config(steps=5, eta=0, cfg_scale=2.0, precision=precision), label=label, indices=range(2), seed=0
        )
        for precision in ("fp32", "bf16")
    ]
    assert draws[1].dtype == torch.float32
    difference = (draws[0] - draws[1]).abs().mean() / draws[0].abs().mean()
    assert 0 < difference < 0.05


@pytest.mark.slow
def test_a_compiled_model_draws_the_same_samples_to_rounding() -> None:
    stage = config(sampler="ddim", steps=10, cfg_scale=2.0, clip=True)
    options = {"label": torch.tensor([1, 4]), "indices": range(2), "seed": 0}
    shape = {"size": 8, "channels": 1, "classes": 10, "seed": 0}
    model = build_model(ModelConfig(patch=4, width=16, depth=1, decoder_depth=1, heads=1), **shape)
    drawn = torch.Generator().manual_seed(0)
    model.load_state_dict({name: 0.2 * torch.randn(p.shape, generator=drawn) for name, p in model.state_dict().items()})
    expected = generate(model, COSINE, stage, **options)
    with own_graphs():
        compile_model(model, torch.device("cpu"))
        found = generate(model, COSINE, stage, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
