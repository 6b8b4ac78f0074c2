"""Print the differences from the official implementation, as the table of ``docs/parity.md``.

    PYTHONPATH=tests python -m engine.parity_table

Every number is the largest difference over the golden vectors of ``tests/golden`` (small-vision, commit 3d4555b, float32 on a
CPU), relative to the largest expected value of the array unless the row says otherwise; the differences of the few-shot probe's
weights are absolute. The tests enforce the tolerances.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from engine.diffusion.test_objective import METHODS, gradients, official_loss
from engine.golden_files import HEADS, TAGS, arrays, images, tiny_model, worst, worst_by_row
from engine.networks.test_auto_encoder import IMAGE, LABEL, MASK_NOISE, T, prediction
from engine.test_samplers import config, seen_by_a_sampler
from engine.training.test_optim import Leaves, largest_error, part, take_step, training
from evaluation.metrics.test_frechet import gaussian
from torch import Tensor

from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.train_stage import OptimConfig
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.published.small_vision_conversion import from_official, to_official
from umd_bench.engine.samplers import SAMPLERS, Denoiser
from umd_bench.engine.training.optim import build_optimizer, clip_grad_norm, learning_rate, set_learning_rate
from umd_bench.evaluation.metrics.frechet import frechet_distance
from umd_bench.evaluation.metrics.inception_score import inception_score
from umd_bench.evaluation.probes.ridge import fit_ridge

Row = tuple[str, str]


def number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def forward() -> Iterator[Row]:
    """The largest difference, listed for each t.

    It is larger at large t, because the time embedding's sines of large angles lose digits in float32.
    """
    predicted, represented = [], []
    for tag in TAGS:
        for ratio in (0.0, 0.375, 0.75):
            label = LABEL if tag.endswith("nc10") else None
            out = tiny_model(tag)(IMAGE, T, mask_noise=MASK_NOISE, mask_ratio=ratio, label=label)
            name = f"m{int(ratio * 1000):03d}"
            predicted.append(worst_by_row(prediction(out), arrays(f"fwd_{tag}")[f"pred_{name}"]))
            represented.append(worst_by_row(out.representation, arrays(f"fwd_{tag}")[f"rep_{name}"]))
    for output, found in (("predictions", predicted), ("representation", represented)):
        by_time = [f"{number(max(column))} (t = {t})" for t, column in zip(T.tolist(), zip(*found, strict=True), strict=True)]
        yield f"Forward pass, {output}: adaLN on and off, labels, masks 0, .375, .75", ", ".join(by_time)
    given, model, expected = arrays("model_inputs"), tiny_model("adaln1_nc10"), arrays("fwd_adaln1_nc10")["pred_cfg1.5"]
    guided = [
        worst(seen_by_a_sampler(model, IMAGE[i : i + 1], t, LABEL[i : i + 1], cfg_scale=1.5), images(expected[i : i + 1]))
        for i, t in enumerate(given["t"][:, 0].tolist())
    ]
    yield "Guidance 1.5, t up to 1000", number(max(guided))


def objective() -> Iterator[Row]:
    for method, tag in METHODS.items():
        golden, model = arrays(f"loss_{method}"), tiny_model(tag)
        loss = official_loss(model, golden).loss
        torch.autograd.backward(loss)
        norm = torch.stack([g.norm() for g in gradients(model).values()]).norm().item()
        leaves = [
            abs(float(np.linalg.norm(g)) / float(golden[f"gnorm/{name}"]) - 1)
            for name, g in to_official(gradients(model), HEADS).items()
            # Attention does not depend on the bias of its keys, so that gradient is 0 up to rounding.
            if float(golden[f"gnorm/{name}"]) > 1e-7
        ]
        differences = abs(loss.item() / float(golden["loss"]) - 1), abs(norm / float(golden["grad_norm"]) - 1), max(leaves)
        yield f"{method}: loss; gradient norm; norm of each parameter's gradient", "; ".join(map(number, differences))
    golden, model = arrays("loss_umd"), tiny_model("adaln1_nc0")
    torch.autograd.backward(official_loss(model, golden).loss)
    found = [
        float(np.abs(g - golden[f"grad/{name}"]).max() / np.abs(golden[f"grad/{name}"]).max())
        for name, g in to_official(gradients(model), HEADS).items()
        if np.abs(golden[f"grad/{name}"]).max() > 1e-7
    ]
    yield "umd: any gradient entry, relative to the largest entry of its parameter", number(max(found))


def optimiser() -> Iterator[Row]:
    golden, model = arrays("loss_umd_3steps"), tiny_model("adaln1_nc0")
    decay, beta1, beta2, clip, _ = golden["hparams"].tolist()
    optimizer = build_optimizer(
        model, OptimConfig(weight_decay=decay, beta1=beta1, beta2=beta2, clip_norm=clip, first_moment="bf16")
    )
    losses = []
    for step in range(3):
        loss = official_loss(model, golden, f"_s{step}").loss
        losses.append(abs(loss.item() / float(golden[f"loss_s{step}"]) - 1))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        clip_grad_norm(model, clip)
        set_learning_rate(optimizer, float(golden[f"lr_s{step}"]))
        optimizer.step()
    expected = from_official({k.removeprefix("final_params/"): v for k, v in golden.items() if k.startswith("final_params/")})
    # qkv.bias is left out, because Adam takes full steps along the keys' part of it, though that gradient is only rounding.
    moved = [(p - expected[name]).square().mean().sqrt().item() for name, p in model.named_parameters() if "qkv.b" not in name]
    yield (
        "Three steps: losses (relative); weights except qkv.bias after step 3 (absolute: RMS difference of the worst parameter"
        ", where the steps moved weights by up to 1.5e-2)",
        "; ".join(map(number, (max(losses), max(moved)))),
    )
    leaves = Leaves(part("p0"))
    adamw = build_optimizer(leaves, OptimConfig(first_moment="bf16"))
    found = []
    for step in range(6):
        take_step(leaves, adamw, step)
        found.append(largest_error(leaves, part(f"eager/p{step + 1}")))
    yield "AdamW with the bf16 first moment, six steps: absolute difference", number(max(found))
    rates = []
    golden = arrays("lr_schedules")
    for run in ("umd_b4", "mae_readme", "finetune"):
        total, warmup, peak = golden[f"{run}/total_warmup_peak"].tolist()
        stage = training(nimg=int(total) * 8, warmup_nimg=int(warmup) * 8, lr_per_256=peak * 256 / 8)
        ours = np.array([learning_rate(step * 8, stage) for step in golden[f"{run}/steps"].tolist()])
        rates.append(float(np.abs(ours - golden[f"{run}/lr"]).max() / peak))
    yield "Learning rates, relative to the peak", number(max(rates))


def sampling() -> Iterator[Row]:
    for name in ("linear", "cosine"):
        alpha, _ = NoiseProcess(NoiseConfig(schedule=name)).path(torch.arange(1, 1001))
        table = arrays("schedules")[f"{name}/alphas_cumprod"]
        difference = float(np.abs(alpha.square().numpy() / table - 1).max())
        yield f"Schedule {name}: cumulative alphas, relative to each entry", number(difference)
    model = tiny_model("adaln1_nc10")
    label = torch.from_numpy(arrays("ddim_model_adaln1_nc10_eps_cond")["y"]).long()

    def denoise(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            out = model(x, torch.full((len(x),), t), label=label)
        return out.x_0, out.target

    toys: list[tuple[str, str, str, Denoiser, bool]] = [
        ("DDIM, eps = .1 x, 125 steps, clipped", "ddim_toy_cosine_clip_125", "cosine", lambda x, t: (x, 0.1 * x), True),
        (
            "DDIM, eps = (.3 + .6 t/T) x, 250 steps",
            "ddim_toyt_linear_noclip_250",
            "linear",
            lambda x, t: (x, (0.3 + 0.6 * (t - 1) / 1000) * x),
            False,
        ),
        ("DDIM, the tiny model with labels, 25 steps", "ddim_model_adaln1_nc10_eps_cond", "cosine", denoise, True),
    ]
    for case, name, schedule, toy, clip in toys:
        golden = arrays(name)
        shown: list[Tensor] = []

        def recorded(x: Tensor, t: float, toy: Denoiser = toy, shown: list[Tensor] = shown) -> tuple[Tensor, Tensor]:
            shown.append(x)
            return toy(x, t)

        noise = iter([images(golden["init_noise"]), *map(images, golden["step_noise"])])
        stage = config(steps=len(golden["step_noise"]), clip=clip)
        final = SAMPLERS["ddim-official"].draw(recorded, noise, NoiseProcess(NoiseConfig(schedule=schedule)), stage)
        steps = [worst(x, images(expected)) for x, expected in zip(shown[1:], golden["x_after_step"], strict=True)]
        yield f"{case}: every step", number(max(*steps, worst(final, images(golden["final"]))))


def evaluation() -> Iterator[Row]:
    z = arrays("fewshot_lsr")
    for case in ("primal", "dual"):
        probe = fit_ridge(torch.from_numpy(z[f"{case}/x"]), torch.from_numpy(z[f"{case}/y"]).long(), classes=10)
        closed = np.abs(probe.weights.numpy() - z[f"{case}/w_float64_closed_form"]).max()
        official = np.abs(probe.weights.numpy() - z[f"{case}/w"]).max()
        test = torch.from_numpy(z[f"{case}/x_test"]), torch.from_numpy(z[f"{case}/y_test"]).long()
        accuracy = f"accuracy {probe.accuracy(*test):.3f} (official {float(z[f'{case}/acc']):.3f})"
        comparison = f"Few-shot probe, {case}: weights against the float64 closed form; against the official float32; accuracy"
        yield comparison, f"{number(float(closed))}; {number(float(official))}; {accuracy}"
    z = arrays("fid_is")
    frechet_cases = {"a": "D = 16", "b": "D = 64", "lowrank": "D = 64, covariances of ranks 39 and 49"}
    for case, description in frechet_cases.items():
        a, b = (gaussian(z[f"{case}/mu{i}"], z[f"{case}/sigma{i}"]) for i in (1, 2))
        yield f"Fréchet distance, {description}", number(abs(frechet_distance(a, b) / float(z[f"{case}/fid"]) - 1))
    for case, samples in {"n1000": "1,000", "n137": "137"}.items():
        score, _ = inception_score(torch.from_numpy(z[f"is/{case}/p_yx"]).double().log(), 10)
        yield f"Inception score, {samples} samples", number(abs(score / float(z[f"is/{case}/score"]) - 1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("| quantity | largest difference |\n| :--- | :--- |")
    for section in (forward, objective, optimiser, sampling, evaluation):
        for comparison, found in section():
            print(f"| {comparison} | {found} |")
