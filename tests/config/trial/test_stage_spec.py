"""A stage's key changes with everything that can change its result, and with nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import COMPONENT_VERSIONS, StageSpec
from umd_bench.config.trial.train_stage import CorruptionConfig, ImportStage, TrainStage

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
        ("stages.probe.ridge=[10]", {"probe"}),
        ("stages.probe.knn=[20]", {"probe"}),
        ("stages.probe.linear={}", {"probe"}),
        ("stages.probe.block=2", {"probe"}),
        ("stages.probe.pool=patches", {"probe"}),
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
        "stages.generate.eta=1.0",  # ddim's default
        "stages.pretrain.min_snr_gamma=2",  # without effect, since the loss weight is uniform
        "stages.probe.t=0",  # the default
        "stages.probe.knn=[]",
        "stages.probe.linear=null",
        "stages.probe.block=4",  # the last block
        "stages.probe.pool=class",  # the model's own pool
        "stages.probe.ridge=10.0",
        "stages.pretrain.corruption.mask_ratio=0.375",
        "data.size=8",  # the data set's own size
    ],
)
def test_fields_that_cannot_change_a_result_are_in_no_key(change: str) -> None:
    assert changed(change) == set()


def test_a_stages_name_is_not_in_its_key() -> None:
    renamed = load_trial("umd", sets=["stages.other={kind: probe, parent: pretrain, shots: [10, 100], draws: 10, ridge: 10}"])
    assert renamed.specs["other"].key == renamed.specs["probe"].key


def test_without_clean_images_their_mask_ratio_changes_no_key() -> None:
    assert changed("stages.pretrain.corruption.mask_ratio_t0=0.5", method="dit") == set()
    assert changed("stages.pretrain.corruption.mask_ratio_t0=0.5", method="umd") == set(STAGES)


def test_without_noised_images_the_noise_changes_no_key_before_fine_tuning() -> None:
    assert changed("noise.schedule=linear", method="mae") == {"finetune", "finetune_probe", "generate"}
    assert changed("stages.pretrain.corruption.mask_ratio=0.5", method="mae") == set()


def test_a_schedule_parameter_given_with_its_default_changes_no_key() -> None:
    plain = keys("umd", "noise.schedule=laplace")
    assert keys("umd", "noise.schedule=laplace", "noise.parameters.b=0.5") == plain
    assert set(keys("umd", "noise.schedule=laplace", "noise.parameters.b=0.6").values()).isdisjoint(plain.values())


def test_the_loss_weight_changes_no_key_without_noised_images() -> None:
    assert changed("stages.pretrain.loss_weight=min_snr", method="mae") == set()
    assert changed("stages.pretrain.loss_weight=min_snr", method="umd") == set(STAGES)


def test_the_guidance_interval_changes_no_key_without_guidance() -> None:
    assert keys("umd", "stages.generate.cfg_scale=1", "stages.generate.cfg_interval=[0,500]") == keys(
        "umd", "stages.generate.cfg_scale=1"
    )
    assert changed("stages.generate.cfg_interval=[0,500]") == {"generate"}


def test_umd_without_clean_images_and_masks_has_the_key_of_dit() -> None:
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


def imported(*, seed: int = 0, heads: int = 2, **fields: object) -> StageSpec:
    stage = {"layout": "mae", "file": "a.pth", "sha256": "0" * 64, "nimg": 10, **fields}
    return StageSpec(
        stage=ImportStage.model_validate(stage),
        model=ModelConfig(family="mae", patch=2, width=64, depth=2, decoder_depth=0, heads=heads, class_tokens=1, adaln=False),
        data=DataConfig(name="digits"),
        noise=NoiseConfig(),
        seed=seed,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "1" * 64},
        {"layout": "dit"},
        {"nimg": 11},
        {"classes": 10},
        {"sees_clean": False},
        {"pool": "patches"},
        {"heads": 4},
    ],
)
def test_the_key_of_an_import_depends_on_its_content_and_how_it_is_read(change: dict[str, object]) -> None:
    assert imported(**change).key != imported().key  # type: ignore[arg-type]


def test_the_path_of_the_file_and_the_seed_are_not_in_an_imports_key() -> None:
    assert imported(file="b.pth", seed=7).key == imported().key


def test_imported_weights_without_clean_images_are_probed_on_noised_images() -> None:
    stage = "{{kind: import, layout: small-vision, file: a, sha256: '{}', nimg: 1, sees_clean: {}}}"
    for sees_clean, t in (("true", 0), ("false", 51)):
        trial = load_trial("umd", sets=["stages.pretrain=" + stage.format("0" * 64, sees_clean)])
        assert trial.specs["probe"].stage.t == t


def test_keys_of_training_stages_never_change() -> None:
    """Pinned: results of earlier versions are reused unless a component's version is raised."""
    spec = StageSpec(
        stage=TrainStage(kind="pretrain", nimg=1280, batch=128, corruption=CorruptionConfig(r_t0=0.5, mask_ratio=0.25)),
        model=ModelConfig(patch=2, width=64, depth=2, decoder_depth=1, heads=2),
        data=DataConfig(name="digits"),
        noise=NoiseConfig(),
        seed=0,
    )
    assert spec.key == "ee7978f45b4b1948"


def test_keys_of_probes_never_change() -> None:
    spec = StageSpec(
        stage=ProbeStage(parent="pretrain", shots=(10, 100), draws=5, ridge=10, t=0),
        model=ModelConfig(patch=2, width=64, depth=2, decoder_depth=1, heads=2),
        data=DataConfig(name="digits"),
        noise=NoiseConfig(),
        seed=0,
        parent_key="0" * 16,
        parent_nimg=1280,
    )
    assert spec.key == "07828a6598af83db"


def test_without_shots_the_fields_of_the_ridge_probe_change_no_key() -> None:
    base = ("stages.probe.shots=[]", "stages.probe.knn=[20]")
    assert keys("umd", *base, "stages.probe.draws=3", "stages.probe.ridge=5")["probe"] == keys("umd", *base)["probe"]


def test_the_size_and_the_vae_of_the_data_are_in_every_key() -> None:
    pretrain = load_trial("umd").specs["pretrain"]
    choices = [(64, None), (256, None), (256, "sd_kl_f8")]
    data = [DataConfig(name="imagenet", size=size, vae=vae) for size, vae in choices]
    assert len({StageSpec.model_validate({**pretrain.model_dump(), "data": choice}).key for choice in data}) == 3


@pytest.mark.parametrize(
    "idle",
    ["scores=[is, accuracy, fd]", "more_extractors=[]", "save=false", "precision=fp32", "held_out=null", "held_out=test"],
)
def test_a_later_field_of_generate_is_in_no_key_at_its_default(idle: str) -> None:
    plain = load_trial("umd", sets=["stages.generate.scores=[fd, is, accuracy]"]).specs["generate"]
    assert "scores" not in plain.identity()["stage"]
    before = [f"stages.generate.{field}" for field in ("scores=[fd, is, accuracy]",)]
    assert keys("umd", *before, f"stages.generate.{idle}") == keys("umd", *before)


@pytest.mark.parametrize(
    "acts",
    ["scores=[fd]", "more_extractors=[fashion_cnn]", "save=true", "reference=train", "reference=validation", "precision=bf16"],
)
def test_the_fields_of_scoring_change_the_key_of_the_generate_stage_only(acts: str) -> None:
    assert changed(f"stages.generate.{acts}") == {"generate"}


def test_the_scored_split_of_a_probe_is_in_its_key_unless_it_is_the_test_split() -> None:
    assert keys("umd", "stages.probe.split=test") == keys("umd")
    assert changed("stages.probe.split=validation") == {"probe"}


def test_the_held_out_split_is_in_the_key_only_where_it_is_not_the_reference() -> None:
    """A reference that is test or validation fixes the images that the memorisation alarm reads."""
    for reference in ("validation", "test"):
        base = ("umd", f"stages.generate.reference={reference}")
        assert keys(*base, f"stages.generate.held_out={reference}") == keys(*base)
    base = ("umd", "stages.generate.reference=train")
    assert keys(*base, "stages.generate.held_out=test") == keys(*base)
    assert keys(*base, "stages.generate.held_out=validation")["generate"] != keys(*base)["generate"]
    with pytest.raises(
        UserError, match=r"held_out.*test is not accepted: the reference validation is held out itself; expected n"
    ):
        keys("umd", "stages.generate.reference=validation", "stages.generate.held_out=test")


def test_keys_of_generate_stages_never_change() -> None:
    """Pinned: scores that were added later do not change the keys of earlier results."""
    spec = StageSpec(
        stage=GenerateStage(parent="finetune", n=500, steps=20, cfg_scale=2.0, extractor="digits_cnn", eta=1.0),
        model=ModelConfig(patch=2, width=64, depth=2, decoder_depth=1, heads=2),
        data=DataConfig(name="digits"),
        noise=NoiseConfig(),
        seed=0,
        parent_key="05164e46fab4742c",
        parent_nimg=1280,
        parent_labels=True,
        parent_ema=True,
    )
    assert spec.key == "1d7018316cee49fa"


def test_the_order_of_scores_changes_no_key() -> None:
    assert keys("umd", "stages.generate.scores=[fd, kid]") == keys("umd", "stages.generate.scores=[kid, fd]")


def test_a_reference_file_is_in_the_key_by_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "a.npz", tmp_path / "b.npz"
    one.write_bytes(b"statistics")
    other.write_bytes(b"statistics")

    def key(file: Path, *more: str) -> str:
        return keys("umd", f"stages.generate.reference={file}", *more)["generate"]

    assert key(one) == key(other) != keys()["generate"]
    stated = "stages.generate.reference_sha256=" + hashlib.sha256(b"statistics").hexdigest()
    assert key(tmp_path / "not_here.npz", stated) == key(one)
    before = key(one)
    one.write_bytes(b"others")
    assert key(one) != before


def test_a_reference_that_is_no_file_is_refused_with_its_location(tmp_path: Path) -> None:
    for value, problem in {
        tmp_path / "none.npz": r"--set stages\.generate\.reference: .* cannot be read \(No such file",
        "held_out": "'held_out' is not accepted: expected train, validation, test, or the path of an .npz",
    }.items():
        with pytest.raises(UserError, match=problem):
            keys("umd", f"stages.generate.reference={value}")
    with pytest.raises(UserError, match="holds the statistics of one extractor; expected"):
        keys("umd", "stages.generate.reference=a.npz", "stages.generate.more_extractors=[fashion_cnn]")
    with pytest.raises(UserError, match="only a file has a hash"):
        keys("umd", "stages.generate.reference_sha256=" + "a" * 64)
