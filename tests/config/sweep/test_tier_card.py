"""A card holds only for the settings that were checked; a tier without a card is unchecked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from umd_bench.cli.shipped_sweeps import find_sweep_file
from umd_bench.config.documents.document import Document, Location
from umd_bench.config.documents.presets import PRESETS, read_preset
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.config.sweep.tier_card import (
    METHODS,
    Check,
    Gate,
    TierCard,
    Verdict,
    card_path,
    card_text,
    read_card,
    settings_digest,
    tier_warning,
)
from umd_bench.config.trial.stage_spec import COMPONENT_VERSIONS


def own_tier(folder: Path) -> str:
    """The path of a user's tier file, which this writes into ``folder``."""
    shutil.copy(PRESETS / "tiers" / "digits.yaml", folder / "own.yaml")
    return str(folder / "own.yaml")


def checked(tier: str, *verdicts: Verdict) -> TierCard:
    """A card whose check gave these verdicts, with the settings that the tier has now."""
    names = ("headroom", "learning", "samples", "power", "agreement")
    gates = {name: Gate(verdict=verdict, bound="b", found="f") for name, verdict in zip(names, verdicts, strict=False)}
    settings = settings_digest(tier)
    check = Check.model_validate(
        {"sweep": "methods", "seeds": [0, 1], "split": "test", "data": "digits", "data_digest": "d" * 64, "gates": gates}
        | {"settings": settings, "umd_bench": "0.1.0"}
    )
    card = TierCard(status="unchecked", why="w", check=check)
    return card.model_copy(update={"status": card.judged_status})


def keep(tier: str, card: TierCard) -> None:
    card_path(tier).write_text(card_text(tier, card))


def test_a_tier_without_a_card_is_unchecked(tmp_path: Path) -> None:
    for tier in (own_tier(tmp_path), str(tmp_path / "gone.yaml"), "of-another-version", "../tiers/digits"):
        assert read_card(tier).status == "unchecked"
        assert tier_warning(tier).startswith(f"Unchecked tier {tier}: ")


def test_a_card_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    tier = own_tier(tmp_path)
    keep(tier, checked(tier, "pass", "fail"))
    assert card_path(tier) == tmp_path / "own.card.yaml"
    assert read_card(tier) == checked(tier, "pass", "fail")


@pytest.mark.parametrize(("verdicts", "status"), [(["pass"] * 5, "proxy"), (["pass", "unknown"], "smoke"), (["fail"], "smoke")])
def test_the_status_is_proxy_only_if_every_gate_passed(tmp_path: Path, verdicts: list[Verdict], status: str) -> None:
    assert checked(own_tier(tmp_path), *verdicts).status == status


def test_a_card_of_status_reference_keeps_it_whatever_its_gates(tmp_path: Path) -> None:
    card = checked(own_tier(tmp_path), "fail").model_copy(update={"status": "reference"})
    assert card.judged_status == "reference"


def test_only_a_smoke_or_unchecked_tier_has_a_warning(tmp_path: Path) -> None:
    tier = own_tier(tmp_path)
    keep(tier, checked(tier, "fail"))
    assert tier_warning(tier).startswith(f"Smoke tier {tier}: ")
    keep(tier, checked(tier, *["pass"] * 5))
    assert tier_warning(tier) == ""
    assert tier_warning("imagenet64") == ""


def test_other_settings_make_the_tier_unchecked_but_comments_and_resources_do_not(tmp_path: Path) -> None:
    tier = own_tier(tmp_path)
    keep(tier, checked(tier, *["pass"] * 5))
    text = Path(tier).read_text()
    Path(tier).write_text("# Another comment.\n" + text.replace("threads: 1", "threads: 2"))
    assert read_card(tier).status == "proxy"
    Path(tier).write_text(text.replace("nimg: 15_360", "nimg: 30_720"))
    assert (read_card(tier).status, read_card(tier).why) == ("unchecked", "its settings changed after its check")


@pytest.mark.parametrize("changed", ["base.yaml", "methods/mae.yaml"])
def test_a_changed_preset_below_the_tier_makes_it_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    tier = own_tier(tmp_path)
    keep(tier, checked(tier, *["pass"] * 5))

    def preset(path: str) -> Document:
        document = read_preset(path)
        return (
            document.patched(("stages", "pretrain", "optim", "beta1"), 0.8, Location("here")) if path == changed else document
        )

    monkeypatch.setattr("umd_bench.config.sweep.layers.read_preset", preset)
    assert read_card(tier).status == "unchecked"


def test_another_version_of_a_component_makes_the_tier_unchecked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = own_tier(tmp_path)
    keep(tier, checked(tier, *["pass"] * 5))
    monkeypatch.setitem(COMPONENT_VERSIONS, "probe", COMPONENT_VERSIONS["probe"] + 1)
    assert read_card(tier).status == "unchecked"


def test_a_card_of_status_reference_keeps_it_when_the_settings_change(tmp_path: Path) -> None:
    tier = own_tier(tmp_path)
    keep(tier, checked(tier, "fail").model_copy(update={"status": "reference"}))
    Path(tier).write_text(Path(tier).read_text().replace("nimg: 15_360", "nimg: 30_720"))
    assert read_card(tier).status == "reference"


def test_a_card_covers_the_methods_that_its_check_compares() -> None:
    assert load_sweep(find_sweep_file("methods")).config.axes["method"] == list(METHODS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("status: [", r"own\.card\.yaml:1: broken YAML: .*"),
        ("- a\n", r"own\.card\.yaml: expected a mapping of fields, found list"),
        ("status: perfect\nwhy: w\n", r"own\.card\.yaml:1: status = 'perfect' is not accepted: expected unchecked, .*"),
        ("status: smoke\n", r"own\.card\.yaml:1: field why is missing"),
    ],
)
def test_a_broken_card_is_one_sentence_that_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    tier = own_tier(tmp_path)
    card_path(tier).write_text(text)
    with pytest.raises(UserError, match=rf"{says}; remove the card, and `umd-bench tier check .*own\.yaml` writes it again$"):
        read_card(tier)


def test_every_shipped_card_is_that_of_a_tier() -> None:
    for path in (PRESETS / "cards").glob("*.yaml"):
        assert (PRESETS / "tiers" / path.name).is_file()
        assert read_card(path.stem).why
