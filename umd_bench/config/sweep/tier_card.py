"""Tier cards: what may be concluded from the numbers of each tier, and from which check that follows.

The card of a shipped tier is ``presets/cards/<tier>.yaml``. The card of a tier in a user's file ``tier.yaml`` is
``tier.card.yaml`` next to this file. ``umd-bench tier check`` writes cards. A tier without a card is ``unchecked``. So is a
tier whose settings have changed since its check, unless its status is ``reference``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from umd_bench.config.documents.document import Document, read_document
from umd_bench.config.documents.fields import Frozen
from umd_bench.config.documents.presets import PRESETS, TIER_SUFFIXES, tier_names
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.layers import TrialLayers
from umd_bench.config.trial.stage_spec import COMPONENT_VERSIONS

Status = Literal["unchecked", "smoke", "proxy", "reference"]
Verdict = Literal["pass", "fail", "unknown"]
METHODS = ("umd", "mae", "dit", "maskdit")  # the methods of the sweep `methods`, which a check compares
GateName = Literal["headroom", "learning", "samples", "power", "agreement"]
MEANING: dict[Status, str] = {
    "unchecked": "nobody has checked whether it can tell methods apart; conclude nothing from its numbers",
    "smoke": "its numbers show that the machinery works; conclude nothing about methods from them",
    "proxy": "it passes every gate; so, with the published read-out, its order of the methods agrees with the published one",
    "reference": "the scale of the published numbers",
}


class Gate(Frozen):
    """One gate: what was required, what was found, and the numbers behind it, one row each (accuracies in percent).

    ``unknown``: a number that the gate needs is missing, which counts as not passed.
    """

    verdict: Verdict
    bound: str = Field(description="what the gate requires, as one sentence")
    found: str = Field(description="what decided, as one sentence")
    rows: tuple[dict[str, str | float | int | None], ...] = ()


class Looks(Frozen):
    """How many results of a results folder read one split of the tier's data set, with how many different settings.

    ``settings`` counts the trainings behind these results. Trainings that differ only in their seed, or in the snapshot that
    was read, count once.
    """

    probes: int = Field(default=0, ge=0)
    samples: int = Field(default=0, ge=0)
    settings: int = Field(default=0, ge=0)


class Check(Frozen):
    """One check: what ran, on which data and settings, and what each gate found."""

    sweep: str = Field(description="the shipped sweep whose results were judged")
    seeds: tuple[int, ...]
    split: Literal["test", "validation"]
    data: str
    data_digest: str
    settings: str = Field(description="settings_digest of the tier at the time of the check")
    umd_bench: str
    commit: str | None = None
    torch: str | None = None
    device: str | None = None
    stage_seconds: float | None = Field(default=None, ge=0, description="seconds of all stages, one after the other")
    gates: dict[GateName, Gate]
    looks: dict[Literal["test", "validation"], Looks] = Field(default_factory=dict)

    @property
    def not_passed(self) -> list[str]:
        """The gates that failed, or could not be judged."""
        return [name for name, gate in self.gates.items() if gate.verdict != "pass"]


class TierCard(Frozen):
    """A tier's status, the reason for it, further caveats, and the tier's check (None: there was no check)."""

    status: Status
    why: str
    caveats: tuple[str, ...] = ()
    check: Check | None = None

    @property
    def judged_status(self) -> Status:
        """``proxy`` or ``smoke``, by the check's gates. Without a check, or as a ``reference``, a card keeps its status."""
        if self.status == "reference" or self.check is None:
            return self.status
        return "smoke" if self.check.not_passed else "proxy"


def card_path(tier: str) -> Path:
    """The path of a tier's card, which may not exist. ``tier`` is a name, or the path of a tier's YAML file."""
    if tier.endswith(TIER_SUFFIXES):
        return Path(tier).with_suffix(".card.yaml")
    return PRESETS / "cards" / f"{tier}.yaml"


def read_card(tier: str) -> TierCard:
    """The tier's card. Its status is ``unchecked`` if the tier has no card.

    It is also ``unchecked`` if the tier's settings changed after the check, unless the status is ``reference``.

    Raises :class:`UserError` for a card that cannot be read; it names the first wrong field and its line.
    """
    path = card_path(tier)
    if not (tier.endswith(TIER_SUFFIXES) or tier in tier_names()) or not path.is_file():
        return TierCard(status="unchecked", why="it has no card")
    try:
        card = validate(TierCard, read_document(path, expected="a tier's card"))
    except UserError as error:
        raise UserError(f"{error}; remove the card, and `umd-bench tier check {tier}` writes it again") from None
    if card.check is None or card.status == "reference" or card.check.settings == _settings_now(tier):
        return card
    return card.model_copy(update={"status": "unchecked", "why": "its settings changed after its check"})


def card_text(tier: str, card: TierCard) -> str:
    """The card as the text of its file."""
    fields = card.model_dump(mode="json", exclude_none=True)
    head = (
        f"# The card of tier {tier}. `umd-bench tier check {tier}` writes it again, and keeps caveats and status reference.\n"
    )
    return head + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120)


def settings_digest(tier: str) -> str:
    """Twelve hex digits of the SHA-256 of all that decides what the tier's trials of :data:`METHODS` compute.

    These are the fields from base.yaml, from the methods' presets and from the tier, and the versions of the components.
    Resources are left out, since they change at most the last bits of a result. Raises :class:`UserError` for a tier that
    cannot be read.
    """
    layers = TrialLayers(Document({}), tier, None)
    trials = {method: layers.of_method(method).document.value for method in METHODS}
    fields = {method: {name: part for name, part in trial.items() if name != "resources"} for method, trial in trials.items()}
    text = json.dumps([fields, COMPONENT_VERSIONS], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _settings_now(tier: str) -> str | None:
    """:func:`settings_digest`; None if the tier's file cannot be read."""
    try:
        return settings_digest(tier)
    except UserError:
        return None


def tier_warning(tier: str) -> str:
    """The line that heads every table of a tier from which nothing can be concluded; empty for other tiers."""
    card = read_card(tier)
    if card.status not in ("smoke", "unchecked"):
        return ""
    name = "Smoke" if card.status == "smoke" else "Unchecked"
    return f"{name} tier {tier}: {MEANING[card.status]} (`umd-bench tier show {tier}` says why)."
