"""Suggestions: every sampler repeats them from the same results, reopened or not, and keeps to the search space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.orchestration.search.suggestions import Study, Suggestion

SPACE: dict[str, Any] = {
    "model.a": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.b": {"low": 1, "high": 9, "int": True},
    "model.c": {"low": 0, "high": 1, "step": 0.1},
    "model.d": {"choices": ["u", None, True, 3]},
}


def search(sampler: str, **fields: Any) -> SearchConfig:
    defaults = {"trials": 14, "space": SPACE, "objectives": {"p.acc": "maximise", "g.fd": "minimise"}, "parallel": 3}
    return SearchConfig.model_validate({**defaults, "sampler": sampler, "startup": 4, "population": 4, **fields})


def fill(file: Path, config: SearchConfig, *, reopen: bool) -> list[Suggestion]:
    """Ask and tell to the end, three open at a time; numbers 3 and 5 fail."""
    study = Study(file, "s", config)
    for number in range(config.trials):
        while len(study.suggestions()) < min(number + config.parallel, config.trials):
            study.ask()
        if reopen and number % 5 == 2:
            study = Study(file, "s", config)
        values = study.suggestions()[number].values
        if number in (3, 5):
            study.tell(number, "failed", why="so")
        else:
            study.tell(number, "done", (values["model.b"] / 10 - values["model.a"], values["model.c"] + values["model.b"]))
    return study.suggestions()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "gp"])
def test_every_sampler_repeats_itself_reopened_or_not_and_keeps_to_the_space(tmp_path: Path, sampler: str) -> None:
    config = search(sampler, trials=14 if sampler != "gp" else 6)
    first = fill(tmp_path / "a.db", config, reopen=False)
    assert fill(tmp_path / "b.db", config, reopen=True) == first
    assert [s.state for s in first[3:6]] == ["failed", "done", "failed"]
    assert (first[3].why, first[3].scores) == ("so", ())
    for suggestion in first:
        a, b, c, d = suggestion.values.values()
        assert 1e-4 <= a <= 1e-1
        assert a == float(f"{a:.4g}")
        assert b in range(1, 10)
        assert c in {round(i / 10, 1) for i in range(11)}
        assert d in ("u", None, True, 3)
    assert len({repr(s.values) for s in first}) > 5


@pytest.mark.slow
def test_tpe_suggests_other_values_than_random_after_its_start(tmp_path: Path) -> None:
    assert [s.values for s in fill(tmp_path / "a.db", search("tpe"), reopen=False)] != [
        s.values for s in fill(tmp_path / "b.db", search("random"), reopen=False)
    ]


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "search.db").write_text("something else entirely")
    with pytest.raises(UserError, match=r"search\.db cannot be used"):
        Study(tmp_path / "search.db", "s", search("random"))


def test_an_unfinished_database_of_a_killed_command_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".search.db.new").write_text("cut off")
    assert Study(tmp_path / "search.db", "s", search("random")).suggestions() == []
