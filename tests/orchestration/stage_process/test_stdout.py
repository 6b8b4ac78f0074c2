"""The output of a stage, from Python, C and child processes, goes to the attempt's folder; a terminal can get a copy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from umd_bench.orchestration.stage_process.stdout import captured_output, copied_to_the_terminal, output_set_aside


def speak() -> None:
    print("printed")
    print("complained", file=sys.stderr)
    os.write(1, b"below Python\n")
    subprocess.run(["echo", "a child's"], check=True)


def test_the_file_contains_exactly_the_printed_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with captured_output(tmp_path):
        speak()
    print("after")
    assert (tmp_path / "output.log").read_text().splitlines() == ["printed", "complained", "below Python", "a child's"]
    assert capfd.readouterr().out == "before\nafter\n"


def test_the_terminal_of_a_commands_own_process_is_not_silenced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with copied_to_the_terminal(), captured_output(tmp_path):
        speak()
    seen = capfd.readouterr()
    assert seen.err + seen.out == (tmp_path / "output.log").read_text()


def test_a_stage_that_prints_nothing_leaves_no_file(tmp_path: Path) -> None:
    with captured_output(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_streams_are_restored_after_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ValueError, match="mine"), captured_output(tmp_path):
        raise ValueError("mine")
    assert (sys.stdout, sys.stderr) == before
    os.write(1, b"here again\n")
    assert capfd.readouterr().out == "here again\n"


def test_a_command_prints_between_steps_to_its_own_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with captured_output(tmp_path):
        print("the stage")
        with output_set_aside():
            print("the command")
        print("the stage again")
    assert (tmp_path / "output.log").read_text() == "the stage\nthe stage again\n"
    assert capfd.readouterr().out == "the command\n"
