"""Transfer end to end: trained on one set of pictures, probed on two others by every read-out, in one table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from analysis.regenerate import regenerate
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.data.packing.images import PackOptions, pack_data
from umd_bench.orchestration.graph import sweep_record
from umd_bench.orchestration.launch import Site, execute, prepare
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.reporting.frames.sweep_frames import long_frame
from umd_bench.store import write_sweep

READ_OUTS = "shots: [10], draws: 2, ridge: [1, 100, 10000], knn: [5], linear: {batch: 32, epochs: 30, lr_per_256: [3, 30]}"
SWEEP = f"""\
name: transfer
tier: digits
trial:
  data: {{name: bars, size: 8}}
  model: {{width: 16, depth: 1, decoder_depth: 1, heads: 2}}
  stages:
    pretrain: {{nimg: 1280, batch: 32}}
    probe: {{{READ_OUTS}}}
    transfer_halves: {{kind: probe, parent: pretrain, data: {{name: halves}}, {READ_OUTS}}}
    transfer_tints: {{kind: probe, parent: pretrain, data: {{name: tints}}, {READ_OUTS}}}
axes:
  method: [umd, mae]
seeds: [0]
stages: [probe, transfer_halves, transfer_tints]
"""


def picture(kind: str, label: int, rng: np.random.Generator) -> Image.Image:
    """A noisy 8x8 picture of class ``label``: a bright row or column, a bright left or right half, or one of three tints."""
    x = rng.normal(90, 25, (8, 8, 3))
    line = rng.integers(0, 8)
    match kind:
        case "bars":
            x[(line, slice(None)) if label else (slice(None), line)] += 120
        case "halves":
            x[:, 4 * label : 4 * label + 4] += 60
        case _:
            x[..., label] += 40
    return Image.fromarray(x.clip(0, 255).astype(np.uint8))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with three small data sets of a user's own, packed from pictures."""
    rng, root = np.random.default_rng(0), tmp_path / "packs"
    monkeypatch.setenv("UMD_BENCH_DATA", str(root))
    for kind, classes in (("bars", 2), ("halves", 2), ("tints", 3)):
        for label in range(classes):
            folder = tmp_path / "raw" / kind / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(50):
                picture(kind, label, rng).save(folder / f"{i}.png")
        pack_data(kind, tmp_path / "raw" / kind, root, PackOptions(size=8, workers=1))
    return root


@pytest.mark.slow
def test_features_of_one_data_set_are_probed_on_others_in_one_table(tmp_path: Path, data: Path) -> None:
    (tmp_path / "transfer.yaml").write_text(SWEEP)
    root = tmp_path / "results"
    sweep = load_sweep(tmp_path / "transfer.yaml")
    nodes = prepare(sweep.trials, Site(root, data, "inline", 1))
    assert execute(Scheduler(root, Grid(nodes)), Site(root, data, "inline", 1), Console(quiet=True)).complete
    write_sweep(root, sweep_record(sweep))

    frame = long_frame(root, "transfer")
    probed = frame[frame["kind"] == "probe"]
    assert set(zip(probed["stage"], probed["data"], strict=True)) == {
        ("probe", "bars"), ("transfer_halves", "halves"), ("transfer_tints", "tints"),
    }  # fmt: skip
    accuracy = probed[(probed["method"] == "mae") & (probed["metric"] == "acc_knn5")].set_index("data")["value"]
    assert accuracy["halves"] > 0.7  # of two classes
    assert accuracy["tints"] > 0.5  # of three

    made = {outcome.name: outcome.folder for outcome in regenerate(root, tmp_path / "out")}
    assert made["transfer"] is not None
    header = (made["transfer"] / "table.md").read_text().split("| ---")[0]
    for stage in ("probe", "transfer_halves", "transfer_tints"):
        for read_out in ("10-shot % ↑", "5-NN % ↑", "linear % ↑"):
            assert f"{stage} {read_out}" in header
    rows = (made["transfer"] / "table.csv").read_text()
    assert "raw pixels" in rows
    assert "umd" in rows
    assert "mae" in rows
