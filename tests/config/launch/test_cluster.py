"""Settings for a cluster: read from a file and options, with one clear sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import load_cluster


def test_options_win_over_the_file_and_lists_grow(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("partition: gpu\ntime: 4h\ngpus: 1\nextra: [--reservation=a]\n")
    config = load_cluster(str(file), ["time=90m", "extra=--nice", "gpus=2"])
    assert (config.partition, config.time, config.gpus, config.extra) == ("gpu", 90, 2, ("--reservation=a", "--nice"))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("30", 30), ("30m", 30), ("4h", 240), ("2d", 2880), ("1:30:00", 90), ("1-12:00:00", 2160), ("0:00:30", 1)],
)
def test_a_duration_in_any_of_its_spellings(text: str, minutes: int) -> None:
    assert load_cluster(None, [f"time={text}"]).time == minutes


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("gpu=1", ["unknown field gpu", "did you mean 'gpus'"]),
        ("gpus=many", ["gpus", "'many'", "whole number"]),
        ("nodes=0", ["nodes", "0", "expected at least 1"]),
        ("time=soon", ["time", "'soon'", "30m"]),
        ("time=0m", ["at least one minute"]),
        ("mem=8 GB", ["mem", "8G"]),
        ("extra=--array=1-3", ["--array is set for every job already"]),
        ("extra=reservation", ["an option of sbatch"]),
        ("partition", ["expected key=value"]),
    ],
)
def test_a_mistake_gives_a_one_line_error_that_names_the_option(option: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_cluster(None, [option])
    message = str(caught.value)
    assert message.startswith("--slurm")
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_a_bare_number_in_yaml_is_refused_because_it_may_be_seconds(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("partition: gpu\ntime: 1:30:00\n")
    with pytest.raises(UserError, match=r"mine\.yaml:2: .*in quotes"):
        load_cluster(str(file), [])


def test_an_unknown_cluster_lists_the_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "jean.yaml").write_text("partition: a\n")
    assert load_cluster("jean", []).partition == "a"
    with pytest.raises(UserError, match="expected a YAML file or one of: jean"):
        load_cluster("joan", [])
