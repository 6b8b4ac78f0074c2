"""A stage's key changes with everything that can change its result, and with nothing else."""

from __future__ import annotations

import pytest

from umd_bench.config.resolve import load_trial
from umd_bench.config.stage import COMPONENT_VERSIONS, StageSpec
from umd_bench.config.trial import CorruptionConfig, DataConfig, ModelConfig, NoiseConfig, TrainStage

STAGES = ("pretrain", "probe", "finetune", "finetune_probe", "generate")


def keys(method: str = "umd", *sets: str) -> dict[str, str]:
    return {name: spec.key for name, spec in load_trial(method, sets=sets).specs.items()}


def changed(*sets: str, method: str = "umd") -> set[str]:
    before, after = keys(method), keys(method, *sets)
    return {name for name in STAGES if before[name] != after[name]}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("stages.pretrain.corruption.mask_ratio=0.5", set(STAGES)),
        ("seed=1", set(STAGES)),
        ("model.width=32", set(STAGES)),
        ("noise.schedule=linear", set(STAGES)),
        ("stages.finetune.nimg=2560", {"finetune", "finetune_probe", "generate"}),
        ("stages.generate.cfg_scale=3.5", {"generate"}),
        ("stages.probe.shots=[5]", {"probe"}),
        ("stages.pretrain.precision=bf16", set(STAGES)),
    ],
)
def test_a_field_changes_its_stage_and_its_descendants(change: str, stages: set[str]) -> None:
    assert changed(change) == stages


@pytest.mark.parametrize(
    "change",
    [
        "resources.threads=2",
        "stages.pretrain.checkpoint_every_nimg=128",
        "stages.pretrain.snapshots=[1280]",
        "stages.generate.batch=7",
        "stages.probe.t=0",  # the default, spelled out
        "stages.pretrain.corruption.mask_ratio=0.375",
        "data.size=8",  # its own
    ],
)
def test_what_cannot_change_a_result_is_not_in_any_key(change: str) -> None:
    assert changed(change) == set()


def test_a_stages_name_is_not_in_its_key() -> None:
    renamed = load_trial("umd", sets=["stages.other={kind: probe, parent: pretrain, shots: [10, 100], draws: 10, ridge: 10}"])
    assert renamed.specs["other"].key == renamed.specs["probe"].key


def test_without_clean_images_the_clean_mask_ratio_is_idle() -> None:
    assert changed("stages.pretrain.corruption.mask_ratio_t0=0.5", method="dit") == set()
    assert changed("stages.pretrain.corruption.mask_ratio_t0=0.5", method="umd") == set(STAGES)


def test_without_noised_images_the_noise_is_idle_until_fine_tuning() -> None:
    assert changed("noise.schedule=linear", method="mae") == {"finetune", "finetune_probe", "generate"}
    assert changed("stages.pretrain.corruption.mask_ratio=0.5", method="mae") == set()


def test_umd_at_the_corner_is_the_same_stage_as_the_preset() -> None:
    corner = keys("umd", "stages.pretrain.corruption.r_t0=0", "stages.pretrain.corruption.mask_ratio=0")
    assert corner["pretrain"] == keys("dit")["pretrain"]
    assert corner["probe"] == keys("dit")["probe"]


def test_a_component_version_is_in_the_keys_that_depend_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys()
    monkeypatch.setitem(COMPONENT_VERSIONS, "probe", 99)
    after = keys()
    assert {name for name in STAGES if before[name] != after[name]} == {"probe", "finetune_probe"}


def test_models_without_clean_images_are_probed_at_noise_index_50() -> None:
    assert load_trial("dit").specs["probe"].stage.t == 51
    assert load_trial("umd").specs["probe"].stage.t == 0


def test_keys_stay_what_they_were() -> None:
    """Pinned: results of an earlier version stay reusable unless a component's version says otherwise."""
    spec = StageSpec(
        stage=TrainStage(kind="pretrain", nimg=1280, batch=128, corruption=CorruptionConfig(r_t0=0.5, mask_ratio=0.25)),
        model=ModelConfig(patch=2, width=64, depth=2, decoder_depth=1, heads=2),
        data=DataConfig(name="digits"),
        noise=NoiseConfig(),
        seed=0,
    )
    assert spec.key == "d287cd0e950f0d41"


def test_the_size_and_the_vae_of_the_data_are_in_every_key() -> None:
    pretrain = load_trial("umd").specs["pretrain"]
    choices = [(64, None), (256, None), (256, "sd_kl_f8")]
    data = [DataConfig(name="imagenet", size=size, vae=vae) for size, vae in choices]
    assert len({StageSpec.model_validate({**pretrain.model_dump(), "data": choice}).key for choice in data}) == 3
