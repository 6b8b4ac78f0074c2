"""Sweep files become trials."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from config.small_sweep import SWEEP, ZIPPED, write

import umd_bench.config
from umd_bench.config.documents.document import Document
from umd_bench.config.documents.presets import method_names, tier_names
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import UserError
from umd_bench.config.sweep import resolve
from umd_bench.config.sweep.resolve import json_schema, load_sweep, load_trial
from umd_bench.config.trial.trial import TrialConfig

SWEEPS = Path(__file__).parents[3] / "sweeps"
PRESETS = Path(umd_bench.config.__file__).parent / "presets"


def test_a_sweep_is_every_combination_of_its_axes_with_every_seed(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, SWEEP))
    assert [trial.id for trial in sweep.trials] == [
        f"mask_ratio={ratio},schedule={schedule},seed={seed}"
        for ratio in ("0.25", "0.5")
        for schedule in ("linear", "cosine")
        for seed in (0, 1)
    ]
    first = sweep.trials[0].config
    assert first.noise.schedule == "linear"
    assert first.stages["pretrain"].nimg == 1280
    assert first.stages["pretrain"].corruption.mask_ratio == 0.25


IMPORTED = """\
name: imported
tier: digits
trial:
  method: umd
  stages:
    pretrain: null
    finetune: null
    finetune_probe: null
    given: {kind: import, layout: umd-bench, file: a.safetensors, sha256: '%s', nimg: 32}
    probe: {parent: given}
    best_probe: {parent: given}
    generate: {parent: given}
axes:
  stages.probe.shots: [[5], [10]]
seeds: [7, 3, 11]
""" % ("0" * 64)


@pytest.mark.parametrize("text", [SWEEP.replace("[0, 1]", "[4, 0, 9]"), IMPORTED], ids=["trained", "imported"])
@pytest.mark.parametrize("stages", ["", "stages: [probe]\n"], ids=["all", "some"])
def test_a_trial_does_not_depend_on_the_other_seeds_of_the_sweep(tmp_path: Path, text: str, stages: str) -> None:
    together = load_sweep(write(tmp_path, text + stages))
    for seed in together.config.seeds:
        alone = load_sweep(write(tmp_path, text + stages), sets=[f"seeds=[{seed}]"]).trials
        among = [trial for trial in together.trials if trial.config.seed == seed]
        assert [(t.id, t.config, t.specs, t.axes) for t in among] == [(t.id, t.config, t.specs, t.axes) for t in alone]
        for one, other in zip(among, alone, strict=True):
            assert [s.key for s in one.specs.values()] == [s.key for s in other.specs.values()]
            # The key as a worker computes it from config.yaml.
            assert [type(s).model_validate(s.model_dump()).key for s in one.specs.values()] == [
                s.key for s in other.specs.values()
            ]
            assert one.document.value == other.document.value


def test_a_trial_is_validated_once_for_all_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated = []
    monkeypatch.setattr(resolve, "validate", lambda model, document: validated.append(model) or validate(model, document))
    load_sweep(write(tmp_path, SWEEP.replace("[0, 1]", str(list(range(50))))))
    assert validated.count(TrialConfig) == 4


def test_reading_a_trial_visits_its_own_locations_and_no_others_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    part = Document.part
    monkeypatch.setattr(Document, "part", lambda self, *path: parts.append(path) or part(self, *path))
    load_sweep(write(tmp_path, SWEEP.replace("[linear, cosine]", "[linear]")))
    few = len(parts)
    load_sweep(write(tmp_path, SWEEP.replace("[linear, cosine]", "[linear, cosine, sigmoid, laplace]")))
    assert len(parts) == 2 * few


def test_adding_a_value_keeps_the_other_trials_keys(tmp_path: Path) -> None:
    before = {t.id: t.specs["generate"].key for t in load_sweep(write(tmp_path, SWEEP)).trials}
    wider = SWEEP.replace("[0.25, 0.5]", "[0.75, 0.5, 0.25]  # a comment")
    after = {t.id: t.specs["generate"].key for t in load_sweep(write(tmp_path, wider)).trials}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 4


def test_extends_puts_a_file_on_top_of_another(tmp_path: Path) -> None:
    write(tmp_path, SWEEP, "base.yaml")
    path = write(
        tmp_path, "extends: base.yaml\nname: wider\nseeds: [7]\ntrial: {stages: {pretrain: {batch: 64}}}\n", "top.yaml"
    )
    sweep = load_sweep(path)
    assert sweep.config.name == "wider"
    assert sweep.config.seeds == [7]
    assert sweep.trials[0].config.stages["pretrain"].batch == 64
    assert sweep.trials[0].config.stages["pretrain"].nimg == 1280


def test_a_stage_of_another_kind_replaces_the_one_below_and_one_of_the_same_kind_is_merged(tmp_path: Path) -> None:
    weights = "pretrain: {kind: import, layout: mae, file: a.pth, sha256: '%s', nimg: 5}" % ("0" * 64)
    stage = (
        load_sweep(
            write(
                tmp_path,
                SWEEP.replace("pretrain: {nimg: 1280}", weights).replace(
                    "  stages.pretrain.corruption.mask_ratio: [0.25, 0.5]\n", ""
                ),
            )
        )
        .trials[0]
        .config.stages["pretrain"]
    )
    assert (stage.kind, stage.nimg) == ("import", 5)
    same = load_sweep(write(tmp_path, SWEEP.replace("{nimg: 1280}", "{kind: pretrain, nimg: 1280}"))).trials[0]
    assert same.config.stages["pretrain"].batch == 32


def test_set_and_tier_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, SWEEP)
    sweep = load_sweep(
        path, tier="fashion", sets=["trial.stages.pretrain.nimg=2560", "axes.noise.schedule=[cosine]", "seeds=[3]"]
    )
    assert len(sweep.trials) == 2
    assert sweep.trials[0].config.data.name == "fashion_mnist"
    assert sweep.trials[0].config.stages["pretrain"].nimg == 2560


def test_stages_selects_the_named_stages_and_their_parents(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, SWEEP + "stages: [generate]\n"))
    assert list(sweep.trials[0].specs) == ["pretrain", "finetune", "generate"]


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda p: p.stem)
@pytest.mark.parametrize("tier", tier_names())
def test_every_shipped_sweep_resolves_at_every_tier(path: Path, tier: str) -> None:
    sweep = load_sweep(path, tier=tier)
    assert len(sweep.config.seeds) >= 3 or sweep.config.search is not None  # a search explores, any other sweep compares
    assert sweep.config.name == path.stem
    trials = sweep.trials or sweep.corners()
    assert len({trial.id for trial in trials}) == len(trials) > 0


@pytest.mark.parametrize("method", method_names())
def test_the_name_of_every_method_is_a_trial(method: str) -> None:
    assert load_trial(method).config.method == method


def test_a_tier_may_be_the_path_of_a_file(tmp_path: Path) -> None:
    digits = PRESETS / "tiers" / "digits.yaml"
    tier = write(tmp_path, f"extends: {digits}\ntrial: {{stages: {{probe: {{draws: 3}}}}}}\n", "My tier.yaml")
    own = load_sweep(write(tmp_path, SWEEP), tier=str(tier))
    assert own.config.tier == str(tier)
    assert own.trials[0].config.stages["probe"].draws == 3


@pytest.mark.parametrize(
    ("snapshot", "nimg"),
    [
        ("640", 640),
        ("0.5", 7_680),
        ("1.0", 15_360),
        ("0.0001", 32),
        ("0.3334", 5_120),
        ("0.3325", 5_120),
        ("15360", 15_360),
        ("null", 15_360),
    ],
)
def test_a_snapshot_is_images_seen_or_a_share_rounded_to_the_nearest_batch(snapshot: str, nimg: int) -> None:
    trial = load_trial("umd", sets=[f"stages.{stage}.snapshot={snapshot}" for stage in ("probe", "finetune")])
    assert [trial.specs[stage].parent_nimg for stage in ("probe", "finetune")] == [nimg, nimg]


def test_a_snapshot_at_the_end_gives_the_same_stage_as_null() -> None:
    keys = {load_trial("umd", sets=[f"stages.probe.snapshot={s}"]).specs["probe"].key for s in ("null", "1.0", "15360")}
    assert len(keys) == 1


def test_paths_joined_by_a_comma_get_the_same_value(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, ZIPPED))
    assert [trial.id for trial in sweep.trials[:4:2]] == [
        "mask_ratio=0.25,snapshot=0.5,seed=0",
        "mask_ratio=0.25,snapshot=1,seed=0",
    ]
    half, whole = sweep.trials[0], sweep.trials[2]
    for stage in ("finetune_probe", "generate"):
        assert (half.specs[stage].parent_nimg, whole.specs[stage].parent_nimg) == (6_400, 12_800)
        assert half.specs[stage].key != whole.specs[stage].key
    assert half.specs["finetune"].key == whole.specs["finetune"].key


def test_the_schema_describes_sweeps_and_trials() -> None:
    assert "axes" in yaml.safe_load(json_schema("sweep"))["properties"]
    assert "stages" in yaml.safe_load(json_schema("trial"))["properties"]
    with pytest.raises(UserError, match="expected one of sweep, trial"):
        json_schema("stage")


def test_a_model_name_is_expanded_below_the_other_fields(tmp_path: Path) -> None:
    by_axis = SWEEP.replace("  noise.schedule: [linear, cosine]\n", "  model: [S/4, B/2]\n").replace(
        "  method: umd\n", "  method: mae\n  model: {class_tokens: 2}\n"
    )
    sweep = load_sweep(write(tmp_path, by_axis))
    assert [trial.id for trial in sweep.trials[:4:2]] == [
        "mask_ratio=0.25,model=S/4,seed=0",
        "mask_ratio=0.25,model=B/2,seed=0",
    ]
    small, base = (sweep.trials[i].config.model for i in (0, 2))
    assert (small.width, small.depth, small.decoder_depth, small.heads, small.patch) == (384, 12, 4, 6, 4)
    assert (base.width, base.depth, base.decoder_depth, base.heads, base.patch) == (768, 12, 4, 12, 2)
    assert (small.adaln, small.class_tokens) == (False, 2)  # from the method's preset and from the file
    large = load_sweep(write(tmp_path, SWEEP), sets=["trial.model=L/2"]).trials[0].config.model
    assert (large.width, large.depth, large.decoder_depth, large.heads, large.patch) == (1024, 24, 8, 16, 2)
    assert load_trial("umd", sets=["model=L/2"]).config.model == large
    trial = write(tmp_path, "tier: digits\nmethod: umd\nmodel: L/2\n", "trial.yaml")
    assert load_trial(str(trial), sets=["model.depth=3"]).config.model == large.model_copy(update={"depth": 3})
    tier = write(tmp_path, "trial: {model: L/2, data: {name: digits}}\nextends: base_tier.yaml\n", "tier.yaml")
    write(tmp_path, (PRESETS / "tiers/digits.yaml").read_text(), "base_tier.yaml")
    assert load_trial("umd", tier=str(tier)).config.model == large
