"""From the results of the sweep `methods` at a tier to its card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from analysis.tier_card.agreement import agreement, counterpart
from analysis.tier_card.looks import count_looks
from analysis.tier_card.numbers import GENERATE, OFFICIAL, Numbers
from analysis.tier_card.power import power
from analysis.tier_card.probe_gates import headroom, learning
from analysis.tier_card.sample_gate import NoTraining, samples
from umd_bench.config.documents.presets import TIER_SUFFIXES, read_tier
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.tier_card import Check, Gate, GateName, TierCard, read_card, settings_digest
from umd_bench.config.trial.data import ScoredSplit
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.reporting.notation.metrics import family
from umd_bench.reporting.statistics.summary import Summary, summarize
from umd_bench.store import RunDir

SWEEP = "methods"
_NAMES: tuple[GateName, ...] = ("headroom", "learning", "samples", "power", "agreement")


def check_name(tier: str, split: ScoredSplit) -> str:
    """The name of the check's own record of the sweep `methods`, so that it replaces no other: ``check_digits``."""
    stem = Path(tier).stem.lower() if tier.endswith(TIER_SUFFIXES) else tier
    return f"check_{stem}" + ("" if split == "test" else f"_{split}")


def check_tier(results: Path, data_root: Path, tier: str, sweep: str, split: ScoredSplit) -> TierCard:
    """The card of a tier from the sweep recorded as ``sweep`` below ``results``, whose only axis is the method.

    Samples from untrained weights and of noise are drawn here, with the generate stage's own settings. Caveats, and the status
    ``reference``, are taken over from the tier's present card. Raises :class:`UserError` for an unknown sweep or tier, if the
    sweep has another axis, and if a stage has no result.
    """
    summary = summarize(results, sweep)
    missing = summary.long[summary.long["state"] != "done"]
    if len(missing):
        raise UserError(f"sweep {sweep} is not complete: {len(missing)} stages have no result; run the check again to go on")
    if set(summary.axes) != {"method"}:
        raise UserError(f"sweep {sweep} cannot be judged: expected the axis method alone, found {', '.join(summary.axes)}")
    numbers = Numbers.of(summary)
    gates = judge(
        numbers, [(c.stage, c.metric) for c in summary.columns], no_training(summary, numbers.distance(), results, data_root)
    )
    # The rows of stages that read the tier's own data set; a probe may read another one.
    of_tier = summary.long[summary.long["data"] == read_tier(tier).part("trial", "data").value.get("name")]
    digest = str(of_tier["data_digest"].iloc[0])
    check = Check(
        sweep=SWEEP,
        seeds=numbers.seeds,
        split=split,
        data=str(of_tier["data"].iloc[0]),
        data_digest=digest,
        settings=settings_digest(tier),
        umd_bench=_joined(of_tier["umd_bench"]) or "unknown",
        commit=_joined(of_tier["commit"]),
        torch=_joined(of_tier["torch"]),
        device=_joined(of_tier["device"]),
        stage_seconds=round(float(summary.costs.drop_duplicates("key")["seconds"].sum()), 1),
        gates=gates,
        looks=count_looks(results, digest),
    )
    before = read_card(tier)
    card = TierCard(status=before.status, why=before.why, caveats=before.caveats, check=check)
    return card.model_copy(update={"status": card.judged_status, "why": _why(card)})


def judge(numbers: Numbers, columns: Sequence[tuple[str, str]], no_training: NoTraining | None) -> dict[GateName, Gate]:
    """The five gates; ``columns`` are the (stage, metric) pairs of the sweep's table."""
    judged = [
        (stage, metric)
        for stage, metric in ((OFFICIAL, numbers.most_shots(OFFICIAL)), (GENERATE, numbers.distance()))
        if metric is not None
    ]
    published = [key for key in numbers.values if counterpart(*key) is not None and family(key[1]) is not None]
    gates = (
        headroom(numbers),
        learning(numbers),
        samples(numbers, no_training),
        power(numbers, columns, judged),
        agreement(numbers, published, judged),
    )
    return dict(zip(_NAMES, gates, strict=True))


def no_training(summary: Summary, metric: str | None, results: Path, data_root: Path) -> NoTraining | None:
    """Scores of samples from untrained weights and of noise, for the first seed of each method.

    ``metric`` is the generate stage's Fréchet distance in whose features the samples are scored. If it is None, because the
    sweep has no such stage, the result is None too.
    """
    import torch

    from umd_bench.data.open_data import open_data
    from umd_bench.evaluation.samples.untrained import noise_scores, untrained_scores

    distances: dict[str, float] = {}
    shares: dict[str, float] = {}
    noise: float | None = None
    for trial in summary.sweep.trials:
        key = trial.stages.get(GENERATE)
        if metric is None or key is None or trial.seed != summary.sweep.seeds[0]:
            continue
        spec = RunDir(results, key).config()
        if not isinstance(spec.stage, GenerateStage) or spec.parent_key is None:
            continue
        torch.set_num_threads(spec.resources.threads)  # as in the stage's own process
        weights, pack = RunDir(results, spec.parent_key).config(), open_data(spec.data, data_root)
        untrained = untrained_scores(spec, weights, pack, metric)
        distances[trial.method] = untrained.distance
        if untrained.accuracy is not None:
            shares[trial.method] = untrained.accuracy
        noise = noise_scores(spec, weights, pack, metric).distance if noise is None else noise
    return None if noise is None else NoTraining(distances, shares, noise)


def _why(card: TierCard) -> str:
    """The reason for the card's status."""
    if card.judged_status == "reference" or card.check is None:
        return card.why
    if not card.check.not_passed:
        return "it passed every gate"
    verdicts = {name: gate.verdict for name, gate in card.check.gates.items()}
    failed = [name for name, verdict in verdicts.items() if verdict == "fail"]
    unknown = [name for name, verdict in verdicts.items() if verdict == "unknown"]
    parts = [f"it failed {', '.join(failed)}"] if failed else []
    parts += [f"{', '.join(unknown)} could not be judged"] if unknown else []
    return "; ".join(parts)


def _joined(values: pd.Series[str] | Iterable[str]) -> str | None:
    """The distinct values, joined by "or"; None if there is none."""
    return " or ".join(dict.fromkeys(str(value) for value in pd.Series(values).dropna())) or None
