"""``umd-bench tier``: verbs on tiers and their cards."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer

from umd_bench.cli.console import console, print_line
from umd_bench.cli.options import RESULTS, DataOption, OnOption, ResultsOption, TrackingOption, WorkersOption, site_of
from umd_bench.config.sweep.tier_card import MEANING, Gate, TierCard

app = typer.Typer(help="Tiers: list, show, check.", no_args_is_help=True)

TierArgument = Annotated[str, typer.Argument(metavar="TIER|FILE", help="A tier's name, or the path of a tier's YAML file.")]


@app.command("list")
def tier_list() -> None:
    """List the tiers: status (what may be concluded from the numbers), check, data, and the reason for the status."""
    from rich.table import Table

    from umd_bench.config.documents.presets import tier_names
    from umd_bench.config.sweep.tier_card import read_card

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("tier", "status", "checked", "data", "why"):
        table.add_column(column, no_wrap=column in ("tier", "status"), overflow="fold")
    for name in tier_names():
        card = read_card(name)
        seeds = "no" if card.check is None else f"seeds {', '.join(map(str, card.check.seeds))} on {card.check.split}"
        table.add_row(name, card.status, seeds, _data(name), card.why)
    console.print(table, highlight=False, markup=False)
    for status, meaning in MEANING.items():
        print_line(f"{status}: {meaning}")


@app.command("show")
def tier_show(
    tier: TierArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as one JSON object.")] = False,
) -> None:
    """Show a tier's card: its status, what to know about it, and what its check found."""
    from umd_bench.config.documents.presets import read_tier
    from umd_bench.config.sweep.tier_card import read_card

    read_tier(tier)
    card = read_card(tier)
    if as_json:
        typer.echo(json.dumps({"schema": 1, "tier": tier, **card.model_dump(mode="json")}))
    else:
        print_card(tier, card)


@app.command("check")
def tier_check(
    tier: TierArgument,
    split: Annotated[
        str,
        typer.Option(
            "--split", help="Split whose images are scored: test, or validation while settings are still being chosen."
        ),
    ] = "test",
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="A,B,...", help="Training seeds (default: the seeds of the sweep `methods`)."),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            "--card",
            metavar="FILE",
            help="Where to write the card (default: over the tier's; with --split validation, the check's folder in RESULTS).",
        ),
    ] = None,
    on: OnOption = "ray",
    workers: WorkersOption = None,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
    mlflow: TrackingOption = None,
) -> None:
    """Judge a tier by the results of the sweep `methods`: run the missing stages, then write the tier's card and print it.

    Five gates decide its status: headroom, learning, samples, power, agreement with the published order.
    """
    from umd_bench.cli.run_sweep import run_sweep
    from umd_bench.cli.shipped_sweeps import find_sweep_file
    from umd_bench.config.documents.presets import read_tier
    from umd_bench.config.errors import FieldError, UserError, one_of
    from umd_bench.config.sweep.resolve import load_sweep
    from umd_bench.config.sweep.tier_card import card_path, card_text
    from umd_bench.config.trial.data import ScoredSplit
    from umd_bench.reporting.report import write_report
    from umd_bench.reporting.statistics.summary import summarize
    from umd_bench.store import sweep_dir
    from umd_bench.store.files import require_writable, write_atomic

    read_tier(tier)
    if split not in get_args(ScoredSplit):
        raise FieldError("--split", split, one_of(get_args(ScoredSplit)))
    scored: ScoredSplit = "test" if split == "test" else "validation"
    from analysis.tier_card.check import SWEEP, check_name, check_tier

    name = check_name(tier, scored)
    if seeds is not None and not re.fullmatch(r"\d+(,\d+)*", seeds):
        raise FieldError("--seeds", seeds, "expected whole numbers, as in 0,1,2")
    if seeds is not None and len(set(map(int, seeds.split(",")))) <= seeds.count(","):
        raise FieldError("--seeds", seeds, "expected each seed once")
    sets = [f"name={name}"] + ([] if seeds is None else [f"seeds=[{seeds}]"])
    site = site_of(on, results, data_root, workers=workers)
    resolved = load_sweep(find_sweep_file(SWEEP), tier=tier, split=scored, sets=sets, data_root=site.data)
    if card is None and scored != "test":
        target = sweep_dir(results, name) / "card.yaml"
    else:
        target = card or card_path(tier)
        try:
            require_writable(target.parent, "the folder of the card")
        except UserError as error:
            raise UserError(f"{error}, with --card") from None
    run_sweep(resolved, site, mlflow)
    made = check_tier(results, site.data, tier, name, scored)
    write_atomic(target, card_text(tier, made).encode())
    write_report(summarize(results, name), results)  # the report's first line depends on the card
    print_line("")
    print_card(tier, made)
    print_line(f"\ncard: {target}")


@app.command("page")
def tier_page() -> None:
    """Print the page of the documentation that shows every shipped tier's card, in Markdown."""
    from analysis.tier_card.page import page

    typer.echo(page(), nl=False)


def print_card(tier: str, card: TierCard) -> None:
    """Print a card: status and caveats, then each gate with its numbers, then how many results have read each split."""
    print_line(f"{tier}: {card.status}: {card.why}")
    print_line(f"{card.status}: {MEANING[card.status]}")
    for caveat in card.caveats:
        print_line(f"- {caveat}")
    check = card.check
    if check is None:
        print_line(f"It has not been checked; run `umd-bench tier check {tier}` to check it.")
        return
    seeds = ", ".join(map(str, check.seeds))
    commit = f", commit {check.commit}" if check.commit else ""
    print_line(
        f"Checked: sweep {check.sweep}, seeds {seeds}, split {check.split} of {check.data} ({check.data_digest[:12]}){commit}"
    )
    for name, gate in check.gates.items():
        print_line(f"\n{name}: {gate.verdict}. {gate.found}\n  {gate.bound}")
        _print_rows(gate)
    for split, looks in check.looks.items():
        print_line(
            f"looks, in the checked results folder: the {split} split was read by {looks.probes} probe and {looks.samples} "
            f"generate results, of models trained with {looks.settings} different settings"
        )


def _print_rows(gate: Gate) -> None:
    import pandas as pd

    from umd_bench.reporting.pages.table_formats import empty_terminal_table

    if not gate.rows:
        return
    rows = [_cells(list(row.values())) for row in gate.rows]
    table = empty_terminal_table(pd.DataFrame(rows, columns=list(gate.rows[0])), 1, 0, None, console.width)
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False, markup=False)


def _cells(values: Sequence[str | float | int | None]) -> list[str]:
    return ["–" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values]


def _data(tier: str) -> str:
    from umd_bench.config.documents.presets import read_tier

    data = read_tier(tier).part("trial", "data").value
    size = f" {data['size']} px" if "size" in data else ""
    return f"{data['name']}{size}" + (f", {data['vae']}" if "vae" in data else "")
