"""A probe that chooses block, pool and t: its candidates, what its key depends on, and which settings are refused."""

from __future__ import annotations

import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.probe_stage import ChooseConfig, Place, ProbeStage
from umd_bench.orchestration.preflight import check_trial

MODEL = ModelConfig(patch=2, width=16, depth=3, decoder_depth=1, heads=2)


def key(choose: str, method: str = "umd") -> str:
    return load_trial(method, sets=[f"stages.probe.choose={choose}"]).specs["probe"].key


def candidates(method: str, choose: str = "{}") -> list[Place]:
    spec = load_trial(method, sets=[f"stages.probe.choose={choose}"]).specs["probe"]
    assert isinstance(spec.stage, ProbeStage)
    assert spec.stage.choose is not None
    assert spec.stage.t is None
    return spec.stage.choose.places(spec.model)


def test_all_are_every_block_and_every_pool_of_the_family() -> None:
    places = ChooseConfig(times=(5,)).places(MODEL)
    assert places == [Place(block, pool, 5) for block in (1, 2, 3) for pool in ("class", "first_class", "patches")]
    mae = MODEL.model_copy(update={"family": "mae"})
    assert {place.pool for place in ChooseConfig(times=(5,)).places(mae)} == {"class", "patches"}


@pytest.mark.parametrize(("method", "least"), [("umd", 0), ("mae", 0), ("dit", 1), ("maskdit", 1)])
def test_clean_is_the_least_noise_that_the_parent_has_seen(method: str, least: int) -> None:
    assert {place.t for place in candidates(method)} == {least, 10, 51}
    assert [place.t for place in candidates(method, "{blocks: [1], pools: [class], times: [51, 1, clean]}")][:2] == [51, 1]


def test_the_protocol_best_chooses_among_all_at_three_times() -> None:
    spec = load_trial("dit", sets=["stages.probe={protocol: best, kind: probe, parent: pretrain}"]).specs["probe"]
    assert isinstance(spec.stage, ProbeStage)
    assert spec.stage.choose == ChooseConfig(times=(1, 10, 51))


def test_the_key_has_the_candidates_and_not_how_they_are_written() -> None:
    depth = load_trial("umd").specs["probe"].model.depth
    assert key("{}") == key(f"{{blocks: {list(range(1, depth + 1))}, times: [0, 10, 51]}}")
    assert len({key("{}"), key("{blocks: [1]}"), key("{pools: [patches]}"), key("{times: [1]}"), key("{}", "dit")}) == 5
    assert key("null") == load_trial("umd").specs["probe"].key


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["choose={blocks: []}"], r"choose\.blocks: \[\] is not accepted: expected at least one value, and each once"),
        (["choose={times: [1, 1]}"], r"choose\.times: \[1, 1\] is not accepted: expected at least one value, and each once"),
        (["choose={}", "t=5"], r"stages\.probe\.t: 5 is not accepted with choose, which chooses it: expected null"),
        (["choose={}", "pool=class"], r"stages\.probe\.pool: class is not accepted with choose"),
        (["choose={}", "shots=[]", "knn=[5]"], r"stages\.probe\.shots: \[\] leaves nothing to choose by"),
    ],
)
def test_settings_that_contradict_a_choice_are_refused(sets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_trial("umd", sets=[f"stages.probe.{one}" for one in sets])


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("choose={blocks: some}", r"choose\.blocks = 'some' is not accepted: expected all, or a list, such as \[1, 2\]"),
        ("choose={blocks: [1, 0]}", r"choose\.blocks\.1 = 0 is not accepted: expected at least 1"),
        ("choose={pools: [foo]}", r"choose\.pools\.0 = 'foo' is not accepted: expected class, first_class or patches"),
        ("choose={times: [dirty]}", r"choose\.times\.0 = 'dirty' is not accepted: expected clean, or a whole number"),
        ("choose={blocks: [0], pools: [x]}", r"choose\.blocks\.0 = 0 is not accepted: expected at least 1 \(and 1 more\)"),
        ("ridge=abc", r"probe\.ridge = 'abc' is not accepted: expected a number, or a list, such as \[1, 2\]"),
    ],
)
def test_the_error_for_a_field_of_two_kinds_names_the_mistake_or_both_kinds(field: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"{message}$"):
        load_trial("umd", sets=[f"stages.probe.{field}"])


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        ("{blocks: [1, 40]}", r"stages\.probe\.choose\.blocks = 40 is not accepted: expected 1\.\."),
        ("{times: [1001]}", r"stages\.probe\.choose\.times = 1001 is not accepted: expected 0\.\.1000"),
    ],
)
def test_candidates_that_the_model_does_not_have_are_refused_before_anything_runs(choose: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_trial(load_trial("umd", sets=[f"stages.probe.choose={choose}"]))
