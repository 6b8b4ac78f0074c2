"""A machine has a warning if other programs are running on it."""

from __future__ import annotations

from dataclasses import replace

import torch

from umd_bench.bench.timing.machine import machine_facts


def test_a_machine_on_which_other_programs_run_has_a_warning() -> None:
    machine = machine_facts(torch.device("cpu"), None, "a processor")
    assert "a processor" in machine.line
    idle, busy = replace(machine, load=0.1, cores=2), replace(machine, load=1.6, cores=2)
    assert idle.warning is None
    assert busy.warning is not None
    assert "1.60" in busy.warning
