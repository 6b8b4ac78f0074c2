"""docs/tiers.md from the cards of the shipped tiers; ``umd-bench tier page`` prints it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from umd_bench.config.documents.presets import tier_names
from umd_bench.config.sweep.tier_card import MEANING, Check, Gate, TierCard, read_card
from umd_bench.reporting.notation.formatting import MISSING
from umd_bench.reporting.pages.table_formats import markdown_table

INTRODUCTION = """\
# Tiers and their cards

<!-- Made by `umd-bench tier page > docs/tiers.md` from the cards: edit the cards, or analysis/tier_card/page.py. -->

A *tier* is a scale: a data set, a model, training lengths and learning rates. Small tiers run in minutes, but a small tier
need not order the methods as the published runs on ImageNet do. So each tier has a *card* that says what may be concluded
from its numbers.

| status | meaning |
| :--- | :--- |
{meanings}

Every table, page and JSON of a sweep at a smoke or unchecked tier says so in its first line. A card belongs to the settings
that were checked. If the tier's file, a preset of its methods or the version of a component changes, the tier is unchecked
again; comments and resources do not count.

## The check

    umd-bench tier list                # every tier with its status
    umd-bench tier show digits         # a card
    umd-bench tier check digits        # run the missing stages of the sweep methods, judge the gates, write the card
    umd-bench tier check my_tier.yaml  # your own tier; its card is my_tier.card.yaml

With `--split validation` the check reads the validation split. Use it while you still choose settings. Such a
card stays in the results folder and does not replace the tier's own, which is judged on the test split.

| gate | passes if |
| :--- | :--- |
| headroom | raw pixels and untrained weights read at least {headroom} points less than the architecture trained with labels |
| learning | every method probes better than its own untrained weights |
| samples | at least {share:.0%} of each method's samples are classified as requested, and the samples are near to real images |
| power | with {seeds} seeds, a difference of half the gap between the best and the worst method is detectable |
| agreement | Kendall's tau-b with the published order is above 0, for the probe and for the samples |

All means are over seeds, and all intervals are 95% Student intervals over seeds. *Better* and *above 0* mean that the whole
interval is above 0. Differences are paired by seed.

- **Probes** are judged at the largest number of shots of the stage `probe`, whose read-out is the published one. `learning`
  also judges the read-out of `best_probe`. So does `headroom`, if that stage has the comparison row *trained with labels*.
- **Samples** are those of the stage `generate`, in the features of its first extractor that has a classifier of the data
  set's classes. Three Fréchet distances to the reference are compared: d of the samples, d_real of other real images, and
  d_bad of plain noise or of samples from untrained weights, whichever is smaller. The samples are near to real images if
  (d - d_real) / (d_bad - d_real) is at most {way:.0%}. The check draws the samples from untrained weights with the stage's own
  settings and the first seed.
- **Power**: a two-sided paired t-test at level 0.05 has to find the difference with probability 0.8. The standard
  deviation of the paired differences is pooled over all pairs of methods. Few seeds give a rough estimate of it.
- **The published order** is that of ImageNet at 64 px (`analysis/paper/imagenet64.yaml`). No interval was published, so
  neighbours in this order count as tied if they differ by less than {tie:.0%}. With ties tau-b cannot reach 1; the card says
  how far it can.

The status is *smoke* if a gate fails or a number that it needs is missing, else *proxy*. *Reference* is declared, not judged.

Whoever chooses settings by the scores of a split fits them to that split, a little with every look. So a card counts *looks*,
for the test split and for the validation split: how many probe and generate results of the checked results folder read it, and
how many different settings of training are behind them. Another seed or another snapshot is not another setting.
"""


def page() -> str:
    """The page in Markdown."""
    from analysis.tier_card.agreement import TIE
    from analysis.tier_card.power import JUDGED_SEEDS
    from analysis.tier_card.probe_gates import MIN_HEADROOM
    from analysis.tier_card.sample_gate import MAX_WAY, MIN_ACCURACY

    meanings = "\n".join(f"| *{status}* | {meaning} |" for status, meaning in MEANING.items())
    bounds = {"headroom": MIN_HEADROOM, "share": MIN_ACCURACY, "way": MAX_WAY, "seeds": JUDGED_SEEDS, "tie": TIE}
    cards = {name: read_card(name) for name in tier_names()}
    lines = [INTRODUCTION.format(meanings=meanings, **bounds)]
    lines += ["## The tiers", "", *_overview(cards), ""]
    for name, card in cards.items():
        lines += card_section(name, card)
    return "\n".join(lines).rstrip("\n") + "\n"


def card_section(tier: str, card: TierCard) -> list[str]:
    """The lines of a card, from its heading on."""
    lines = [f"## {tier}", "", f"Status *{card.status}*: {card.why}.", ""]
    if card.caveats:
        lines += [*(f"- {caveat}" for caveat in card.caveats), ""]
    if card.check is None:
        return [*lines, f"It has not been checked; run `umd-bench tier check {tier}` to check it.", ""]
    lines += [_checked(card.check), ""]
    for name, gate in card.check.gates.items():
        lines += [f"### {tier}: {name}: {gate.verdict}", "", f"{gate.found} Required: {gate.bound}", "", *gate_table(gate)]
    return [*lines, *_looks(card.check)]


def gate_table(gate: Gate) -> list[str]:
    """The numbers of a gate as a Markdown table, with an empty line after it; an empty list if it has no numbers."""
    if not gate.rows:
        return []
    rows = [{name: cell(value) for name, value in row.items()} for row in gate.rows]
    return [*markdown_table(pd.DataFrame(rows, dtype="string").fillna(MISSING)), ""]


def cell(value: str | float | None) -> str:
    """A number of a card as text, a dash for a missing one."""
    return MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _overview(cards: dict[str, TierCard]) -> list[str]:
    rows = []
    for name, card in cards.items():
        gates = {} if card.check is None else card.check.gates
        verdicts: dict[str, str] = {gate: one.verdict for gate, one in gates.items()}
        shown = {gate: verdicts.get(gate, MISSING) for gate in ("headroom", "learning", "samples", "power", "agreement")}
        rows.append({"tier": name, "status": card.status, **shown})
    return markdown_table(pd.DataFrame(rows, dtype="string"))


def _checked(check: Check) -> str:
    facts = [f"sweep `{check.sweep}`", f"seeds {_numbers(check.seeds)}", f"{check.split} split of {check.data} (digest "]
    facts[-1] += f"{check.data_digest[:12]})"
    facts += [f"umd_bench {check.umd_bench}"] + [
        f"{name} {value}"
        for name, value in (("torch", check.torch), ("commit", check.commit), ("device", check.device))
        if value
    ]
    if check.stage_seconds is not None:
        facts.append(f"{check.stage_seconds / 60:.0f} minutes of stages")
    return f"Checked by {', '.join(facts)}."


def _looks(check: Check) -> list[str]:
    lines = [
        f"- The {split} split was read by {looks.probes} probe and {looks.samples} generate results, of models trained with "
        f"{looks.settings} different settings."
        for split, looks in check.looks.items()
    ]
    return ["Looks, in the checked results folder:", "", *lines, ""] if lines else []


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
