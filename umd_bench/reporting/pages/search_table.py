"""A search's table of its best suggestions, as text and on the terminal."""

from __future__ import annotations

import pandas as pd
import rich.box
import rich.table

from umd_bench.reporting.notation.formatting import format_mean, format_value
from umd_bench.reporting.notation.metrics import header, is_percent
from umd_bench.reporting.statistics.search_summary import FRONT_MARK, SearchSummary
from umd_bench.reporting.statistics.summary import Estimate


def cells(search: SearchSummary) -> pd.DataFrame:
    """The best suggestions as text: number, front (with several objectives), hyperparameters, objectives."""
    several = len(search.objectives) > 1
    names = ["#", *(["front"] if several else []), *search.columns.values(), *map(_header, search.objectives)]
    rows = []
    for row in search.best():
        varied = {**row.suggestion.arm, **row.suggestion.values}
        scores = [_score(objective, row.estimates[objective]) for objective in search.objectives]
        mark = [FRONT_MARK if row.front else ""] if several else []
        rows.append([str(row.suggestion.number), *mark, *(format_value(varied.get(path)) for path in search.columns), *scores])
    return pd.DataFrame(rows, columns=names, dtype="string")


def terminal(search: SearchSummary, title: str) -> rich.table.Table:
    """:func:`cells` for the terminal; suggestions that are not on the front are dim."""
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    frame = cells(search)
    for name in map(str, frame):
        table.add_column(name, justify="center" if name == "front" else "right", overflow="fold")
    for row, values in zip(search.best(), frame.itertuples(index=False), strict=True):
        table.add_row(*map(str, values), style=None if row.front else "dim")
    return table


def _header(objective: str) -> str:
    stage, _, metric = objective.partition(".")
    return header(stage, metric)


def _score(objective: str, score: Estimate) -> str:
    return format_mean(score.mean, score.half, percent=is_percent(objective.partition(".")[2]))
