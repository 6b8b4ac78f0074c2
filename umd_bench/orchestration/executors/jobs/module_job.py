"""One small Slurm job that runs a module of this package on a folder, and reports through files in that folder.

It runs as a stage's job does: with the frozen copy of the package, the interpreter of this command, and the cluster's settings
and ``setup`` lines.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.commands import last_line, run_command
from umd_bench.orchestration.executors.frozen_code import freeze_code
from umd_bench.orchestration.executors.jobs.queues.slurm import SlurmQueue, clean_environment

ANSWER_SECONDS = 20.0  # for sbatch and scancel
POLL_SECONDS = 0.5
POLLS_AFTER_END = 10  # after the job has ended, since its files may reach this machine late
NO_FOLDER, NO_PYTHON = 41, 42  # exit codes of the script
OUTPUT = "output"  # the job's stdout and stderr, in the folder
# Slurm's own output goes to /dev/null: if the node does not see the folder, an output file there would end the job at once.
SCRIPT = """\
#!/bin/sh
cd {folder} || exit {no_folder}
exec > {output} 2>&1
{setup}
{python} -c pass || exit {no_python}
exec env PYTHONPATH={code} OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} {python} -P -m {module} {folder}
"""


class NoAnswerError(UserError):
    """sbatch did not answer in time, so the job may or may not have been submitted."""


class ModuleJob:
    """Runs ``python -m module folder`` as one job; a context manager that submits the job and cancels it at the end."""

    def __init__(self, folder: Path, code: Path, config: ClusterConfig, *, module: str, threads: int = 1, minutes: int) -> None:
        """``code`` is the folder of frozen copies. The time limit is ``minutes``, or ``config.time`` if that is shorter."""
        self._folder, self._code, self._config, self._module = folder, code, config, module
        self._threads, self._minutes = threads, minutes
        self._queue = SlurmQueue(config, threads=threads)
        self.id = ""

    def __enter__(self) -> ModuleJob:
        """Submit the job. Raises :class:`NoAnswerError`, and :class:`UserError` if Slurm refuses the job."""
        script = self._folder / "script.sh"
        code = os.pathsep.join(filter(None, [str(freeze_code(self._code)), os.environ.get("PYTHONPATH", "")]))
        script.write_text(
            SCRIPT.format(
                folder=shlex.quote(str(self._folder)),
                python=shlex.quote(sys.executable),
                setup="\n".join(self._config.setup),
                code=shlex.quote(code),
                output=OUTPUT,
                no_folder=NO_FOLDER,
                no_python=NO_PYTHON,
                module=self._module,
                threads=self._threads,
            )
        )
        options = self._queue.options(time=min(self._minutes, self._config.time))
        fixed = ["--parsable", "--job-name=umd-doctor", "--output=/dev/null", "--no-requeue", "--chdir=/"]
        with clean_environment(self._config):
            submitted = run_command("sbatch", *options, *fixed, str(script), seconds=ANSWER_SECONDS)
        if submitted is None:
            raise NoAnswerError(f"sbatch did not answer within {ANSWER_SECONDS:.0f} s")
        if submitted.returncode:
            raise UserError(f"Slurm refused the job ({last_line(submitted.stderr)})")
        self.id = submitted.stdout.strip().partition(";")[0]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        run_command("scancel", self.id, seconds=ANSWER_SECONDS)

    def wait(self, reported: Callable[[], bool], seconds: float) -> Literal["reported", "ended", "timeout"]:
        """Wait until ``reported()`` is true, the job has ended without it, or ``seconds`` have passed."""
        until, polls_after_end = time.monotonic() + seconds, 0
        while not reported():
            if polls_after_end >= POLLS_AFTER_END:
                return "ended"
            if time.monotonic() > until:
                return "timeout"
            status = self._queue.status([self.id]).get(self.id)
            polls_after_end += status is not None and status.over
            time.sleep(POLL_SECONDS)
        return "reported"

    def last_output(self) -> str:
        """The last line that the job printed, or an empty string."""
        try:
            return last_line((self._folder / OUTPUT).read_text(errors="replace"))
        except OSError:
            return ""
