"""The verbs of `umd-bench bench` refuse wrong arguments in one sentence."""

from __future__ import annotations

import sys

import pytest

from umd_bench.config.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "expected --tier, or --model"),
        (["train", "--tier", "digits", "--precision", "fp8"], "--precision"),
        (["sample", "--sampler", "none"], "--sampler"),
        (["scale", "--device", "tpu"], "--device"),
        (["sweep", "--on", "nowhere"], "nowhere"),
        (["all", "--page", "none.md"], "none.md"),
    ],
)
def test_a_verb_refuses_in_one_sentence(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from umd_bench.cli import app

    monkeypatch.setattr(sys, "argv", ["umd-bench", "bench", *arguments])
    with pytest.raises(UserError, match=message):
        app(["bench", *arguments], standalone_mode=False)
