"""Progress in the terminal of the command that runs a sweep: a live table of trials; without a terminal, plain lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from umd_bench.orchestration.monitor.time_left import StageProgress, TimeLeft, clock, read_stage_progress
from umd_bench.orchestration.trial_source import SweepProgress
from umd_bench.store import StageState

PLAIN_LINE_SECONDS = 15.0  # between two plain lines
REDRAW_SECONDS = 0.25
MAX_ROWS = 24


class LiveDisplay:
    """Shows a sweep's :class:`SweepProgress` on every call of :meth:`show`; a context manager around the run."""

    def __init__(self, console: Console, root: Path, slots: int) -> None:
        """``slots`` is the largest number of stages that run at a time."""
        self._console, self._root, self._slots = console, root, slots
        self._time_left = TimeLeft(root)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._started = time.monotonic()
        self._last_shown = self._started if self._live is None else float("-inf")
        self._announced: set[str] = set()  # keys of failed stages

    def __enter__(self) -> LiveDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: SweepProgress) -> None:
        """Print new failures at once; redraw the table or print a line if enough time has passed since the last one."""
        self._announce_failures(progress)
        interval = PLAIN_LINE_SECONDS if self._live is None else REDRAW_SECONDS
        if time.monotonic() - self._last_shown < interval:  # reading the events of many running stages takes time
            return
        self._last_shown = time.monotonic()
        running = {
            key: read_stage_progress(self._root, node)
            for key, node in progress.nodes.items()
            if node.state is StageState.RUNNING
        }
        can_finish = [n for n in progress.nodes.values() if n.key not in progress.blocked and n.key not in progress.failures]
        left = self._time_left.of_sweep(can_finish, running, self._slots)
        if self._live is not None:
            self._live.update(Group(self._table(progress, running), self._summary(progress, left)), refresh=True)
        else:
            self._console.print(self._summary(progress, left), highlight=False)

    def _announce_failures(self, progress: SweepProgress) -> None:
        for key, failure in progress.failures.items():
            if key not in self._announced:
                self._announced.add(key)
                node = progress.nodes[key]
                self._console.print(
                    f"[red]failed[/] {node.trials[0]} {node.name} ({failure.state}): {failure.headline}",
                    highlight=False,
                    soft_wrap=True,
                )

    def _summary(self, progress: SweepProgress, left: float | None) -> str:
        done, total = progress.count(StageState.DONE), len(progress.nodes)
        parts = [f"{done}/{total} stages done", f"{progress.count(StageState.RUNNING)} running"]
        if progress.failures:
            parts.append(f"{len(progress.failures)} failed")
        if progress.blocked:
            parts.append(f"{len(progress.blocked)} blocked by a failed stage")
        parts.append(f"{clock(time.monotonic() - self._started)} elapsed")
        if left is not None and done < total:
            parts.append(f"about {clock(left)} left")
        if progress.stopped_because is not None:
            parts.append(f"stopping: {progress.stopped_because}")
        return ", ".join(parts)

    def _table(self, progress: SweepProgress, running: dict[str, StageProgress]) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("trial", "stage"):
            table.add_column(heading, no_wrap=True)
        table.add_column("progress", min_width=20)
        for heading in ("images/s", "loss", "stages"):
            table.add_column(heading, justify="right", no_wrap=True)
        rows = [self._row(trial, keys, progress, running) for trial, keys in progress.trials.items()]
        if len(rows) > MAX_ROWS:  # a large sweep: only trials that run or have failed, and a count of the others
            active = [row for row in rows if row[0]]
            hidden = len(rows) - len(active[:MAX_ROWS])
            rows = active[:MAX_ROWS]
            table.caption = f"{hidden} more trials"
        for _, cells in rows:
            table.add_row(*cells)
        return table

    def _row(
        self, trial: str, keys: Sequence[str], progress: SweepProgress, running: dict[str, StageProgress]
    ) -> tuple[bool, list[str | Text | ProgressBar]]:
        """Whether the trial runs or has failed, and the cells of its row."""
        nodes = [progress.nodes[key] for key in keys if key in progress.nodes]
        done = sum(node.state is StageState.DONE for node in nodes)
        count = f"{done}/{len(nodes)}"
        failed = next((node for node in nodes if node.key in progress.failures), None)
        current = next((node for node in nodes if node.key in running), None)
        if current is not None:
            stage = running[current.key]
            rate = f"{stage.images_per_second:,.0f}" if stage.images_per_second else ""
            loss = f"{stage.loss:.4f}" if stage.loss is not None else ""
            return True, [trial, current.name, ProgressBar(total=1.0, completed=stage.fraction, width=20), rate, loss, count]
        if failed is not None:
            return True, [trial, Text(f"{failed.name} failed", style="red"), "", "", "", count]
        if len(nodes) < len(keys):  # the search has dropped the missing stages
            return False, [trial, Text("pruned", style="dim"), "", "", "", f"{done}/{len(keys)}"]
        state = Text("done", style="green") if done == len(nodes) else Text("waiting", style="dim")
        return False, [trial, state, "", "", "", count]
