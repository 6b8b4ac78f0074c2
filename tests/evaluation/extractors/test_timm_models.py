"""Any timm model is an extractor, but only with weights that are on the machine and fit every parameter."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
from evaluation.agreement_extractors import images
from torch import Tensor

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.extractors.timm_models import DINOV2, feature_width, timm_model

NAME = "timm:test_resnet.r160_in1k"
VARIABLE = "UMD_BENCH_TIMM_TEST_RESNET_R160_IN1K"


@pytest.fixture(autouse=True)
def _no_weights_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's own weights."""
    monkeypatch.setenv("UMD_BENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def state_of(name: str = NAME, seed: int = 0, **options: int) -> dict[str, Tensor]:
    """The weights of a new model, with random numbers in every vector (scales, biases, running statistics)."""
    generator = torch.Generator().manual_seed(seed)
    model = timm.create_model(name.removeprefix("timm:"), **options)
    return {
        key: 0.5 + torch.rand(x.shape, generator=generator) if x.is_floating_point() and x.ndim == 1 else x.clone()
        for key, x in model.state_dict().items()
    }


def save(path: Path, state: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [NAME, "timm:test_vit.r160_in1k", "timm:test_convnext.r160_in1k", "timm:test_efficientnet.r160_in1k"]
)
def test_features_are_the_models_own_pooled_features_of_the_resized_image(tmp_path: Path, name: str) -> None:
    state = state_of(name)
    save(tmp_path / "weights" / "timm" / f"{name.removeprefix('timm:')}.safetensors", state)
    extractor, x = load_extractor(name), images(3, 64)
    out = extractor.features(x)
    model = timm.create_model(name.removeprefix("timm:")).eval()
    model.load_state_dict(state)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    resized = torch.nn.functional.interpolate(x.float(), (160, 160), mode="bicubic", antialias=True)
    with torch.inference_mode():
        given = model.forward_features((resized / 255 - mean) / std)
        expected = model.forward_head(given, pre_logits=True)
    torch.testing.assert_close(out.pooled, expected, rtol=1e-4, atol=1e-5)
    assert out.logits is None
    assert extractor.dim == out.pooled.shape[1] == feature_width(timm_model(name, path="p"))
    assert (extractor.resize, extractor.data, extractor.has_logits) == ("bicubic with antialiasing to 160 px", None, False)


def test_weights_are_found_at_each_of_three_paths_and_the_path_in_the_variable_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k" / "snapshots" / "abc"
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    paths = [
        tmp_path / "mine.pth",
        tmp_path / "weights" / "timm" / "test_resnet.r160_in1k.pth",
        snapshot / "model.safetensors",
    ]
    hashes = []
    for seed, path in enumerate(reversed(paths)):
        save(path, state_of(seed=seed))
        if path == paths[0]:
            monkeypatch.setenv(VARIABLE, str(path))
        hashes.append(load_extractor(NAME).hash)
        assert hashes[-1] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(set(hashes)) == 3


def test_the_error_for_missing_weights_says_how_to_get_them_and_random_ones_are_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how_to_get = (
        rf"has no weights on this machine: name the file in \${VARIABLE}, or save it as {tmp_path}/weights/timm/"
        r"test_resnet\.r160_in1k\.safetensors \(or \.pth\), or have it in the local Hugging Face cache \(`hf "
    )
    with pytest.raises(UserError, match=how_to_get):
        load_extractor(NAME)
    save(tmp_path / "weights" / "timm" / "test_resnet.r160_in1k.pth", state_of())
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match=how_to_get):
        load_extractor(NAME)


@pytest.mark.parametrize("damage", ["missing", "foreign", "shape", "extra"])
def test_weights_that_do_not_fit_every_parameter_are_refused(tmp_path: Path, damage: str) -> None:
    state = state_of()
    first = next(iter(state))
    if damage == "missing":
        del state[first]
    elif damage == "foreign":
        state = {"other": torch.zeros(1)}
    elif damage == "shape":
        state[first] = torch.zeros(1)
    else:
        state["more"] = torch.zeros(1)
    path = save(tmp_path / "weights" / "timm" / "test_resnet.r160_in1k.safetensors", state)
    with pytest.raises(UserError, match=f"{path} does not hold the weights of {NAME}"):
        load_extractor(NAME)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_without_tensors_is_refused_and_its_code_is_never_run(tmp_path: Path, suffix: str) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "weights" / "timm" / f"test_resnet.r160_in1k{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(UserError, match=f"{path} does not hold tensors that safetensors or torch saved"):
        load_extractor(NAME)
    assert not (tmp_path / "ran").exists()


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    save(tmp_path / "weights" / "timm" / "test_resnet.r160_in1k.safetensors", state_of())
    before = torch.get_rng_state()
    load_extractor(NAME)
    assert torch.equal(before, torch.get_rng_state())


def test_dinov2_is_read_at_224_pixels_by_its_class_token() -> None:
    model = timm_model(DINOV2, path="p")
    assert (model.side, model.create_options, feature_width(model)) == (224, {"num_classes": 0, "img_size": 224}, 1024)
    assert model.facts.resize == "bicubic with antialiasing to 224 px"
    with torch.device("meta"):
        assert timm.create_model(model.name, **model.create_options).global_pool == "token"
    stage = GenerateStage(parent="p", n=2, extractor=DINOV2)  # a name that a YAML file may give
    assert stage.extractor == DINOV2


@pytest.mark.slow
def test_dinov2_weights_of_518_pixels_are_resampled_to_224(tmp_path: Path) -> None:
    name = "timm:vit_small_patch14_dinov2.lvd142m"
    save(tmp_path / "weights" / "timm" / "vit_small_patch14_dinov2.lvd142m.safetensors", state_of(name, num_classes=0))
    out = load_extractor(name).features(images(2, 64))
    assert out.pooled.shape == (2, 384)


def test_the_error_for_an_unknown_model_lists_similar_names() -> None:
    for name, close in (("timm:resnet5", "timm:resnet50"), ("timm:resnet50.bogus", "timm:resnet50")):
        with pytest.raises(FieldError, match=f"stages.generate.extractor = '{name}' is not accepted: .*{close}"):
            load_extractor(name)
    with pytest.raises(FieldError, match=r"'timm:zzzzzzzz' is not accepted: expected timm: and a model that timm has$"):
        load_extractor("timm:zzzzzzzz")
