"""Commands end after a timeout, and a process started for a ``with`` block is killed with its children."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from umd_bench.orchestration.commands import last_line, output_of, run_command, running_process


def test_a_missing_slow_or_failing_command_has_no_output() -> None:
    assert output_of("echo", "hello", seconds=10) == "hello\n"
    assert output_of("false", seconds=10) is None
    assert run_command("no-such-command", seconds=10) is None
    assert run_command("sleep", "60", seconds=0.1) is None


def test_a_process_is_killed_with_its_children_when_its_block_ends() -> None:
    code = "import subprocess; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); child.wait()"
    with running_process([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
    assert process.returncode is not None
    until = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_last_line_is_the_last_that_is_not_blank() -> None:
    assert last_line("first\n  why it failed \n\n") == "why it failed"
    assert last_line("\n") == ""
