"""Two processes that train one stage give the result of one process, resume to the same bits, and end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from engine import two_ranks
from engine.small_runs import BATCH, STEPS, made_up_pack, run_of
from engine.two_ranks import STEPS_OF, WAIT, WITH_SNAPSHOT, after, gradients, run_all

from umd_bench.config.errors import FieldError
from umd_bench.engine.training.loop import Stopped, TrainResult, train
from umd_bench.engine.training.parallel import RankLost, share_of
from umd_bench.engine.training.snapshot import load_snapshot
from umd_bench.engine.training.state import NonFiniteError
from umd_bench.store.run import RunDir

END = BATCH * STEPS
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def both_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The results of all jobs of ``two_ranks.JOBS`` in this process (rank 0) and in the other process (rank 1)."""
    folder, other = tmp_path_factory.mktemp("rank-0"), tmp_path_factory.mktemp("rank-1")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=WAIT)
    alone = run_of(WITH_SNAPSHOT, folder / "alone")
    with alone.begin() as attempt, pytest.raises(Stopped):
        train(WITH_SNAPSHOT, made_up_pack(two_ranks._made(folder / "pack")), attempt, stop=after(6))
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "engine.two_ranks", f"127.0.0.1:{store.port}", str(other)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GLOO_SOCKET_IFNAME", "lo")
            here = run_all(store, 0, folder)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        there = json.loads((other / "outcomes.json").read_text())
        yield SimpleNamespace(here=here, there=there, folder=folder, other=other)
    finally:
        process.kill()
        process.wait()


def result(both_ranks: SimpleNamespace, name: str) -> Any:
    found = both_ranks.here[name]
    if isinstance(found, BaseException):
        raise found
    return found


def run(both_ranks: SimpleNamespace, name: str) -> RunDir:
    return RunDir(both_ranks.folder / name, WITH_SNAPSHOT.key)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS_OF)
def test_the_sum_of_the_ranks_gradients_is_the_gradient_of_one_process(name: str, both_ranks: SimpleNamespace) -> None:
    alone, both = gradients(STEPS_OF[name]), result(both_ranks, f"gradients {name}")
    close = {"rtol": 0.05, "atol": 5e-3} if name == "bf16" else CLOSE
    assert both["gradients"].keys() == alone["gradients"].keys()
    for parameter, expected in alone["gradients"].items():
        found = both["gradients"][parameter]
        assert (found is None) == (expected is None), parameter
        if expected is not None:
            torch.testing.assert_close(found, expected, **close)
    torch.testing.assert_close(torch.stack(both["losses"]), torch.stack(alone["losses"]), **close)


@pytest.mark.slow
def test_dit_has_no_gradient_for_the_mask_token_but_umd_has_one(both_ranks: SimpleNamespace) -> None:
    assert result(both_ranks, "gradients dit")["gradients"]["mask_token"] is None
    assert result(both_ranks, "gradients umd")["gradients"]["mask_token"] is not None


@pytest.mark.slow
def test_weights_do_not_depend_on_the_size_of_the_gradient_buckets(both_ranks: SimpleNamespace) -> None:
    one, many = result(both_ranks, "two buckets")
    assert all(torch.equal(value, many[name]) for name, value in one.items())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_every_image_is_in_one_share_and_no_share_is_empty_or_much_larger(size: int) -> None:
    for batch, n_clean in product(range(size, 16), range(16)):
        if n_clean > batch:
            continue
        stage = SimpleNamespace(batch=batch, n_clean=n_clean)
        shares = [share_of(stage, rank, size) for rank in range(size)]  # type: ignore[arg-type]
        rows = torch.arange(batch)
        assert torch.cat([rows[share.noised] for share in shares]).tolist() == list(range(batch - n_clean))
        assert torch.cat([rows[share.clean] for share in shares]).tolist() == list(range(batch - n_clean, batch))
        sizes = [len(share.of(rows)) for share in shares]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        assert [share.n_clean + share.n_noised for share in shares] == sizes


def test_more_devices_than_images_are_refused() -> None:
    with pytest.raises(FieldError, match=r"resources\.devices = 9 is not accepted: expected at most the batch of 8"):
        share_of(WITH_SNAPSHOT.stage, 0, 9)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_on_two_devices_is_close_to_a_run_on_one(both_ranks: SimpleNamespace, tmp_path: Path) -> None:
    trained = result(both_ranks, "whole")
    assert isinstance(trained, TrainResult)
    alone = run_of(WITH_SNAPSHOT, tmp_path)
    with alone.begin() as attempt:
        expected = train(WITH_SNAPSHOT, made_up_pack(two_ranks._made(tmp_path / "pack")), attempt)
    assert trained.exact
    assert trained.metrics == pytest.approx(expected.metrics, rel=1e-4)
    first, second = ([e for e in of.events() if e["event"] == "metrics"] for of in (run(both_ranks, "whole"), alone))
    assert [e["nimg"] for e in first] == [e["nimg"] for e in second]
    for name in ("loss", "loss_t0", "loss_t", "grad_norm", "lr"):
        assert [e[name] for e in first] == pytest.approx([e[name] for e in second], rel=2e-3)
    for nimg, ema in product((10 * BATCH, END), (False, True)):
        weights = load_snapshot(alone, nimg, ema=ema)
        for name, value in load_snapshot(run(both_ranks, "whole"), nimg, ema=ema).items():
            torch.testing.assert_close(value, weights[name], rtol=0, atol=5e-3)


def same_run(ours: RunDir, theirs: RunDir) -> None:
    for nimg, ema in product((10 * BATCH, END), (False, True)):
        found, expected = load_snapshot(ours, nimg, ema=ema), load_snapshot(theirs, nimg, ema=ema)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_a_stop_on_any_rank_stops_all_at_one_step_and_the_run_resumes_to_the_same_bits(
    both_ranks: SimpleNamespace,
) -> None:
    for name, nimg in (("stopped by rank 1", 7), ("stopped by rank 0", 12)):
        assert isinstance(both_ranks.here[name], Stopped)
        assert both_ranks.there[name] == ["Stopped", str(both_ranks.here[name])]
        assert str(both_ranks.here[name]).startswith(f"stopped after {nimg * BATCH} of")
    trained = result(both_ranks, "resumed")
    assert trained.resumed_from == 12 * BATCH
    assert trained.exact
    assert trained.metrics == result(both_ranks, "whole").metrics
    same_run(run(both_ranks, "stopped"), run(both_ranks, "whole"))
    assert result(both_ranks, "nothing is left to do").metrics == trained.metrics


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_the_run_resumes_to_the_same_bits(both_ranks: SimpleNamespace) -> None:
    assert both_ranks.there["killed"][0] == "RankLost"
    assert isinstance(both_ranks.here["killed again"], RankLost)
    trained = result(both_ranks, "resumed after a kill")
    assert trained.exact
    assert trained.resumed_from == 10 * BATCH
    assert trained.metrics == result(both_ranks, "whole").metrics
    same_run(run(both_ranks, "killed"), run(both_ranks, "whole"))


@pytest.mark.slow
def test_a_run_that_began_on_another_number_of_devices_is_marked_as_not_exact(both_ranks: SimpleNamespace) -> None:
    trained = result(both_ranks, "began alone")
    assert trained.resumed_from == 6 * BATCH
    assert not trained.exact
    warnings = [event["message"] for event in run(both_ranks, "alone").events() if event["event"] == "warning"]
    assert len(warnings) == 1
    assert "world_size 1 -> 2" in warnings[0]


@pytest.mark.slow
def test_a_diverging_run_ends_on_every_rank_for_the_same_reason(both_ranks: SimpleNamespace) -> None:
    assert isinstance(both_ranks.here["diverging"], NonFiniteError)
    assert both_ranks.there["diverging"][0] == "NonFiniteError"


@pytest.mark.slow
def test_ranks_whose_weights_differ_are_detected(both_ranks: SimpleNamespace) -> None:
    assert "no longer hold the same weights" in str(both_ranks.here["strayed"])
    assert both_ranks.there["strayed"] == ["RuntimeError", str(both_ranks.here["strayed"])]


@pytest.mark.slow
def test_only_rank_0_writes(both_ranks: SimpleNamespace) -> None:
    written = {path.name for path in both_ranks.other.rglob("*") if path.is_file() and "pack" not in path.parts}
    assert written == {
        "outcomes.json",
        "config.yaml",
        "nimg-000000000080",
    }  # the files that the jobs prepare on both ranks, and rank 1's report
