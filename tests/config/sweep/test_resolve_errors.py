"""A mistake in a sweep or a trial gives one sentence with file, line, field, value and the accepted values."""

from __future__ import annotations

from pathlib import Path

import pytest
from config.small_sweep import SWEEP, ZIPPED, write

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_sweep, load_trial


def message(folder: Path, text: str, *sets: str, tier: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_sweep(write(folder, text), sets=sets, tier=tier)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("name: small", "nam: small", ["sweep.yaml:1", "unknown field nam", "'name'"]),
        ("nimg: 1280", "ningm: 1280", ["sweep.yaml:6", "stages.pretrain.ningm", "expected one of kind, parent"]),
        ("[0.25, 0.5]", "[0.25, 1.5]", ["sweep.yaml:8", "stages.pretrain.corruption.mask_ratio = 1.5", "less than 1"]),
        ("nimg: 1280", "nimg: 1000", ["sweep.yaml:6", "stages.pretrain.nimg", "multiple of batch = 32"]),
        ("method: umd", "method: gan", ["sweep.yaml:4", "'gan'", "dit, dit_scratch, mae, maskdit, umd"]),
        ("tier: digits", "tier: mnist", ["sweep.yaml:2", "'mnist'", "digits, emoji64, fashion"]),
        ("seeds: [0, 1]", "seeds: [0, 0]", ["sweep.yaml:10", "expected each seed once"]),
        ("noise.schedule: [", "colour: [", ["colour", "noise"]),
        (
            "[linear, cosine]",
            "[linear, cosin]",
            ["sweep.yaml:9", "noise.schedule", "'cosin'", "cosine, edm"],
        ),
        ("nimg: 1280", "nimg: 1280, kind: walk", ["sweep.yaml:6", "stages.pretrain.kind = 'walk'", "pretrain, finetune"]),
        (
            "nimg: 1280",
            "corruption: {mask_ratio_t0: 0}",
            ["sweep.yaml:6", "stages.pretrain.corruption.mask_ratio_t0", "clean images nothing to predict"],
        ),
        ("seeds: [0, 1]", "seeds: [0, 1", ["broken YAML", "sweep.yaml:"]),
        ("seeds: [0, 1]", "name: twice", ["sweep.yaml:10", "given twice"]),
        ("name: small", "name: ../x", ["sweep.yaml:1", "'../x'", "expected lower-case letters, digits"]),
        ("seeds: [0, 1]", "seeds: 3", ["sweep.yaml:10", "seeds = 3", "expected a list, such as [1, 2]"]),
        ("seeds: [0, 1]", "seeds: []", ["sweep.yaml:10", "expected at least 1 item"]),
        ("nimg: 1280", "nimg: many", ["sweep.yaml:6", "stages.pretrain.nimg = 'many'", "expected a whole number"]),
        ("pretrain: {", "pretrian: {", ["sweep.yaml:6", "stages.pretrian.kind is missing", "did you mean 'pretrain'"]),
        ("    pretrain: {", "    finetune: null\n    pretrain: {", ["'finetune' is left out", "one of pretrain, or stages."]),
        ("trial:", "noise:", ["sweep.yaml:3", "noise is a field of a trial", "below trial"]),
    ],
)
def test_an_error_is_one_line_with_location_field_and_accepted_values(
    tmp_path: Path, old: str, new: str, parts: list[str]
) -> None:
    assert old in SWEEP
    text = message(tmp_path, SWEEP.replace(old, new))
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        (
            ["noise.schedule=edm", "noise.parameters.b=1"],
            ["--set noise.parameters.b", "not a parameter of the schedule edm"],
        ),
        (["noise.parameters.b=1"], ["not a parameter of the schedule cosine", "expected no parameters"]),
        (["noise.schedule=laplace", "noise.parameters.b=0"], ["noise.parameters.b", "0.0", "above 0"]),
        (["noise.schedule=sigmoid", "noise.parameters.end=-4"], ["noise.parameters.end", "-4.0", "above start = -3.0"]),
        (["noise.schedule=3"], ["noise.schedule", "3", "cosine"]),
        (["noise.prediction=score"], ["noise.prediction = 'score'", "eps, x_0 or v"]),
        (["stages.generate.sampler=heun", "stages.generate.eta=0.5"], ["stages.generate.eta", "heun takes no eta"]),
        (["stages.generate.cfg_interval=[1]"], ["cfg_interval = [1] is not accepted", "expected at least 2 items"]),
        (["stages.generate.cfg_interval=[1, 2, 3]"], ["cfg_interval = [1, 2, 3] is not accepted", "expected at most 2 items"]),
        (["stages.generate.eta=1.5"], ["stages.generate.eta = 1.5", "expected at most 1"]),
        (["stages.generate.cfg_interval=[500,100]"], ["stages.generate.cfg_interval", "[500.0, 100.0] is empty"]),
    ],
)
def test_the_error_names_a_mistake_in_the_noise_process_or_its_sampling(sets: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load_trial("umd", sets=sets)
    for part in parts:
        assert part in str(error.value)


def test_a_mistake_in_set_names_the_option(tmp_path: Path) -> None:
    assert "--set trial.model.widht" in message(tmp_path, SWEEP, "trial.model.widht=3")
    assert "expected key.path=value" in message(tmp_path, SWEEP, "seeds")


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("stages.pretrain.nimg=64", ["--set stages.pretrain.nimg is not", "expected --set trial.stages.pretrain.nimg=..."]),
        ("model=B/4", ["model is a field of a trial", "--set trial.model=..."]),
        ("seed=1", ["--set seed", "expected seeds, a list"]),
        ("trial.seed=1", ["--set trial.seed", "expected seeds, a list"]),
        ("trial.stages.pretrian.nimg=64", ["--set trial.stages.pretrian.nimg: field", "did you mean 'pretrain'"]),
    ],
)
def test_the_error_for_a_trial_field_set_in_a_sweep_gives_its_path(tmp_path: Path, option: str, parts: list[str]) -> None:
    text = message(tmp_path, SWEEP, option)
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("trial.stages.pretrain.nimg=64", "expected the field without the prefix 'trial.'"),
        ("seeds=[0, 1]", "as in --set seed=0"),
        ("axes.noise.schedule=[cosine]", "axes is a field of a sweep"),
    ],
)
def test_a_sweep_field_set_in_a_trial_is_refused(option: str, part: str) -> None:
    with pytest.raises(UserError) as error:
        load_trial("umd", sets=[option])
    assert str(error.value).startswith(f"--set {option.partition('=')[0]} is not accepted")
    assert part in str(error.value)


def test_the_errors_for_a_trial_given_as_a_sweep_and_the_reverse_name_the_right_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sweep\.yaml:3: trial is a field of a sweep.*`umd-bench sweep` runs"):
        load_trial(str(write(tmp_path, SWEEP)))
    assert "`umd-bench train` runs a trial" in message(tmp_path, "method: umd\nnoise: {schedule: linear}\n")


def test_the_error_for_an_empty_file_names_it(tmp_path: Path) -> None:
    assert message(tmp_path, "").endswith(
        "sweep.yaml: field name is missing: expected name of the sweep, and of its folder in the results"
    )


def test_a_size_other_than_the_data_sets_own_is_refused(tmp_path: Path) -> None:
    text = message(tmp_path, SWEEP, "trial.data.size=16")
    assert "data.size: 16 is not accepted: images of digits have 8 pixels a side" in text


def test_the_errors_for_a_missing_file_and_a_cycle_of_extends_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml cannot be read.*expected a YAML file"):
        load_sweep(tmp_path / "nowhere.yaml")
    write(tmp_path, SWEEP)
    with pytest.raises(UserError, match=r"did you mean \S*/sweep\.yaml\?"):
        load_sweep(tmp_path / "sweeps")
    with pytest.raises(UserError, match=r"a method: dit, dit_scratch, mae, maskdit, umd"):
        load_trial("umdd")
    with pytest.raises(UserError, match=r"nowhere\.yaml cannot be read.*because \S*sweep\.yaml:1 extends it"):
        load_sweep(write(tmp_path, "extends: nowhere.yaml\n"))
    path = write(tmp_path, "extends: sweep.yaml\n")
    with pytest.raises(UserError, match="extends itself"):
        load_sweep(path)


def test_more_devices_than_a_batch_has_images_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"resources\.devices: 129 is not accepted: expected at most 128, the batch of stages\.\w+"
    ):
        load_trial("umd", sets=["stages.pretrain.batch=128", "stages.finetune.batch=128", "resources.devices=129"])
    with pytest.raises(UserError, match=r"resources\.devices = 0"):
        load_trial("umd", sets=["resources.devices=0"])


def test_a_clean_share_that_gives_no_clean_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"gives no clean image in a batch of 128: expected 0, or at least 0\.0079"):
        load_trial("umd", sets=["stages.pretrain.batch=128", "stages.pretrain.corruption.r_t0=0.001"])
    assert (
        load_trial("umd", sets=["stages.pretrain.batch=128", "stages.pretrain.corruption.r_t0=0.0079"])
        .specs["pretrain"]
        .stage.n_clean
        == 1
    )


@pytest.mark.parametrize("snapshot", ["0", "-32", "0.0", "1.5", "650", "15392"])
def test_a_snapshot_that_the_parent_cannot_have_is_refused(snapshot: str) -> None:
    with pytest.raises(UserError, match=rf"stages.probe.snapshot: {snapshot} is .*a share of .* in \(0, 1\]$"):
        load_trial("umd", sets=[f"stages.probe.snapshot={snapshot}"])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("stages.generate.snapshot", "stages.generate.steps", "joins different fields: expected paths with the same end"),
        ("stages.generate.snapshot", "stages.finetune_probe.snapshot", "stages.finetune_probe.snapshot is named twice"),
        ("stages.generate.snapshot", "colour.snapshot", "'colour.snapshot' cannot be varied: expected the path of a field"),
        ("stages.generate.snapshot", "", "'' cannot be varied: expected the path of a field"),
        ("[0.5, 1.0]", "[0.5, 1.5]", "1.5 is not accepted: expected a number of images seen"),
    ],
)
def test_a_mistake_in_joined_paths_gives_a_one_line_error(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = message(tmp_path, ZIPPED.replace(old, new))
    assert "sweep.yaml:" in text
    assert expected in text


@pytest.mark.parametrize("name", ["XL/4", "B", "B/0", "B/4/2", "b/4", ""])
def test_a_bad_model_name_gives_one_sentence_with_its_location(tmp_path: Path, name: str) -> None:
    expected = f"model = {name!r} is not accepted: expected one of B, L, S, a slash and the patch side, as in B/4"
    assert f"sweep.yaml:5: trial.{expected}" in message(
        tmp_path, SWEEP.replace("  method: umd\n", f"  model: '{name}'\n  method: umd\n").replace("trial:\n", "# \ntrial:\n")
    )
    assert f"sweep.yaml:9: {expected}" in message(
        tmp_path, SWEEP.replace("  noise.schedule: [linear, cosine]\n", f"  model: ['{name}']\n")
    )
    assert f"--set trial.model: trial.{expected}" in message(tmp_path, SWEEP, f"trial.model='{name}'")


@pytest.mark.parametrize("levels", [5_000, 200_000])
def test_a_file_or_an_option_that_is_nested_without_end_gives_one_sentence(tmp_path: Path, levels: int) -> None:
    assert message(tmp_path, f"axes: {'[' * levels}").endswith("nested too deeply: expected fields of a few levels")
    assert "is not a YAML value" in message(tmp_path, SWEEP, f"axes={'[' * levels}")
