"""What differs between running a grid and running a search: trials, records, forecasts, and when the sweep is complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from umd_bench.cli.console import console
from umd_bench.config.sweep.resolve import Sweep
from umd_bench.orchestration.forecast.accuracy import forecast_error, save_forecast, search_forecast_error
from umd_bench.orchestration.forecast.forecast import make_forecast
from umd_bench.orchestration.graph import build_graph, sweep_record
from umd_bench.orchestration.launch import Site, prepare
from umd_bench.orchestration.search.rungs import checked_corners
from umd_bench.orchestration.trial_source import Grid, SweepProgress, TrialSource
from umd_bench.store import StageState, SweepRecord, write_sweep

if TYPE_CHECKING:
    from umd_bench.orchestration.search.search import Search


class Work(Protocol):
    """The interface through which :func:`umd_bench.cli.run_sweep.run_sweep` runs a grid or a search."""

    source: TrialSource

    @property
    def summary(self) -> str:
        """The amount of work, in one line."""

    def record(self) -> SweepRecord:
        """The sweep as it is now, for tables and tracking."""

    def begin(self) -> None:
        """Write the records that must exist before the first stage starts."""

    def had_results(self, progress: SweepProgress) -> bool:
        """Whether there is something to report even if no stage finished in this command."""

    def is_complete(self, progress: SweepProgress) -> bool:
        """Whether nothing is left to do."""

    def forecast_error(self) -> str | None:
        """The error of the forecast, in one line; None if it is not known."""

    def print_end(self) -> None:
        """Print the lines after the report."""


@contextmanager
def open_work(sweep: Sweep, site: Site) -> Iterator[Work]:
    """The work of the sweep. In this context a search is locked against other commands."""
    if sweep.config.search is None:
        yield _GridWork(sweep, site)
        return
    from umd_bench.orchestration.search.search import Search

    with Search(sweep, site.results, lambda trials: prepare(trials, site), data_root=site.data) as search:
        yield _SearchWork(sweep, site, search)


class _GridWork:
    """A sweep over axes: every trial is known at the start."""

    def __init__(self, sweep: Sweep, site: Site) -> None:
        self._site, self._record = site, sweep_record(sweep)
        self._nodes = prepare(sweep.trials, site)
        self.source: TrialSource = Grid(self._nodes)

    @property
    def summary(self) -> str:
        reused = sum(node.state is StageState.DONE for node in self._nodes.values())
        return f"{len(self._record.trials)} trials, {len(self._nodes)} stages, {reused} reused"

    def record(self) -> SweepRecord:
        return self._record

    def begin(self) -> None:
        write_sweep(self._site.results, self._record)
        made = make_forecast(self._site.results, self._nodes, 1, data_root=self._site.data)
        save_forecast(self._site.results, self._record.name, made)

    def had_results(self, progress: SweepProgress) -> bool:
        return progress.reused > 0

    def is_complete(self, progress: SweepProgress) -> bool:
        return progress.complete

    def forecast_error(self) -> str | None:
        return forecast_error(self._site.results, self._record.name)

    def print_end(self) -> None:
        pass


class _SearchWork:
    """A search: it adds trials as results arrive, and writes its record itself.

    A suggestion that fails is a result of the search, not a failure of the command.
    """

    def __init__(self, sweep: Sweep, site: Site, search: Search) -> None:
        self._sweep, self._site, self._search = sweep, site, search
        self.source: TrialSource = search

    @property
    def summary(self) -> str:
        return self._search.outcome

    def record(self) -> SweepRecord:
        return self._search.record()

    def begin(self) -> None:
        corners = checked_corners(self._sweep)
        share = self._search.n_left * len(self._sweep.config.seeds) / len(corners)
        if share > 0:
            nodes = build_graph(self._site.results, corners)
            made = make_forecast(self._site.results, nodes, 1, copies=share, data_root=self._site.data)
            save_forecast(self._site.results, self._sweep.config.name, made)

    def had_results(self, progress: SweepProgress) -> bool:
        return self._search.complete

    def is_complete(self, progress: SweepProgress) -> bool:
        return self._search.complete

    def forecast_error(self) -> str | None:
        return search_forecast_error(self._site.results, self._sweep.config.name) if self._search.complete else None

    def print_end(self) -> None:
        console.print(self._search.outcome, highlight=False)
