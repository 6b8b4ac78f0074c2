"""The row "trained with labels": the model learns, one training serves all stages, and the same probe reads its features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation.small_parents import digits, parent_run, run_of, stage_of

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.data.datasets import data_facts
from umd_bench.evaluation.probes.probe_stage import run_probe
from umd_bench.evaluation.probes.representation import FOLDER
from umd_bench.evaluation.probes.supervised import SupervisedWeights
from umd_bench.evaluation.probes.weights import initial_weights
from umd_bench.evaluation.stage_result import StageResult

SETTINGS = {"nimg": 6400, "batch": 64, "lr_per_256": 4e-2, "warmup_nimg": 640}


def probed(root: Path, *, settings: dict[str, object] = SETTINGS, **fields: object) -> StageResult:
    parent = parent_run(root)
    spec = stage_of(parent, "probe", **{"shots": [10], "draws": 2, "ridge": 10.0, "supervised": settings, **fields})
    with run_of(spec, root).begin() as attempt:
        return run_probe(spec, parent, digits(), attempt)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the trainings with labels."""
    seen: list[int] = []
    original = SupervisedWeights.train

    def counting(self: SupervisedWeights) -> dict[str, torch.Tensor]:
        seen.append(1)
        return original(self)

    monkeypatch.setattr(SupervisedWeights, "train", counting)
    return seen


@pytest.mark.slow
def test_training_with_labels_learns_and_is_read_by_the_same_probe(tmp_path: Path) -> None:
    result = probed(tmp_path)
    assert result.metrics["supervised_acc_10shot"] > 0.6 > result.metrics["untrained_acc_10shot"]
    assert isinstance(result.facts["head_accuracy_of_supervised"], float)
    assert 0.6 < result.facts["head_accuracy_of_supervised"] < 1


SHORT = {"nimg": 128, "batch": 64}


@pytest.mark.slow
def test_one_training_serves_all_stages_with_its_architecture_data_seed_and_settings(
    tmp_path: Path, trainings: list[int]
) -> None:
    first = probed(tmp_path, settings=SHORT)
    again = probed(tmp_path, settings=SHORT, t=51, shots=[10, 20], knn=[3])  # read at t = 0 whatever the stage's t is
    assert len(trainings) == 1
    assert again.metrics["supervised_acc_10shot"] == pytest.approx(first.metrics["supervised_acc_10shot"], abs=0.002)
    probed(tmp_path, settings={**SHORT, "lr_per_256": 2e-3})
    probed(tmp_path, settings=SHORT, seed=1)
    assert len(trainings) == 3


@pytest.mark.slow
def test_the_training_repeats_to_the_bit(tmp_path: Path) -> None:
    one, other = (probed(tmp_path / name, settings=SHORT).metrics for name in "ab")
    assert one == other


def test_the_model_is_trained_even_if_the_caller_has_turned_gradients_off(tmp_path: Path) -> None:
    parent = parent_run(tmp_path)
    spec = stage_of(parent, "probe", supervised=SHORT)
    initial = initial_weights(parent, data_facts(spec.data))
    assert initial is not None
    weights = SupervisedWeights(initial, spec.stage.supervised, digits(), 0, tmp_path / FOLDER, torch.device("cpu"))
    with torch.inference_mode(mode=False), torch.no_grad():
        model = weights.model(torch.device("cpu"))
    start = initial.model(torch.device("cpu"))
    assert not torch.equal(model.blocks[0].modulation.weight, start.blocks[0].modulation.weight)
    assert torch.equal(model.head.weight, start.head.weight)  # the decoder takes no part


@pytest.mark.slow
def test_a_training_that_diverges_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lower supervised\.lr_per_256"):
        probed(tmp_path, settings={**SHORT, "lr_per_256": 1e30, "nimg": 1280})


def test_the_field_supervised_changes_the_key_only_if_it_is_set_and_bad_lengths_are_refused() -> None:
    plain = load_trial("umd").specs["probe"]
    assert load_trial("umd", sets=["stages.probe.supervised=null"]).specs["probe"].key == plain.key
    assert load_trial("umd", sets=["stages.probe.supervised={nimg: 64, batch: 64}"]).specs["probe"].key != plain.key
    with pytest.raises(UserError, match=r"supervised\.nimg: 100 is not accepted: expected a multiple of batch = 64"):
        load_trial("umd", sets=["stages.probe.supervised={nimg: 100, batch: 64}"])
