"""The linear probe: heads trained together equal heads trained alone, and the test split has no part in any choice.

agreement_probes.py compares a head with autograd and LARS.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umd_bench.config.errors import UserError
from umd_bench.config.trial.probe_stage import LinearConfig
from umd_bench.evaluation.probes import linear_probe as linear
from umd_bench.evaluation.probes.linear_probe import Heads, linear_probe, split_held_out, train_heads

LRS = (0.3, 1.0, 3.0, 10.0)


def classes_of(seed: int, n: int = 240, d: int = 10, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    return (np.random.default_rng(5).normal(size=(k, d))[y] * 2 + 3 + rng.normal(size=(n, d))).astype(np.float32), y


def trained(lrs: tuple[float, ...], **fields: object) -> Heads:
    x, y = classes_of(0)
    config = LinearConfig(lr_per_256=lrs, **{"batch": 64, "epochs": 8, "warmup_epochs": 2, **fields})
    return train_heads(x, np.arange(len(y)), y, classes=4, config=config, seed=3)


def test_heads_trained_together_equal_heads_trained_alone() -> None:
    together = trained(LRS)
    for place, lr in enumerate(LRS):
        alone = trained((lr,))
        torch.testing.assert_close(together.weights[:, place], alone.weights[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.bias[place], alone.bias[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together.weights[:, 0], together.weights[:, 3], rtol=0.1)


def test_features_that_do_not_fit_the_device_give_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = trained(LRS)
    monkeypatch.setattr(linear, "_RESIDENT_BYTES", 0)
    assert torch.equal(trained(LRS).weights, resident.weights)


def probed(test: tuple[np.ndarray, np.ndarray], lrs: tuple[float, ...] = (1e-6, 10.0)) -> linear.LinearResult:
    config = LinearConfig(lr_per_256=lrs, batch=32, epochs=60, warmup_epochs=2, held_out=0.2)
    return linear_probe(*classes_of(0), *test, classes=4, config=config, seed=0)


@pytest.mark.slow
def test_the_rate_is_chosen_on_held_out_images_and_the_head_trained_again_on_all_training_images() -> None:
    x, y = classes_of(1)
    result = probed((x, y))
    assert result.lr == 10.0
    assert result.held_out[0] < 0.6 < 0.8 < result.held_out[1]
    assert result.accuracy > 0.8
    assert result.accuracy == probed((x, y), lrs=(10.0,)).accuracy
    other = probed((x, (y + 1) % 4))  # with these test labels an untrained head would do better
    assert (other.lr, other.held_out) == (result.lr, result.held_out)


@pytest.mark.slow
def test_the_smallest_of_equally_good_rates_is_chosen_and_an_end_of_the_range_is_reported() -> None:
    result = probed(classes_of(1), lrs=(10.0, 10.000001, 9.999999))
    assert result.lr == 9.999999
    assert result.at_edge
    assert not probed(classes_of(1), lrs=(1e-6, 10.0, 1e9)).at_edge
    assert not probed(classes_of(1), lrs=(10.0,)).at_edge


def test_held_out_images_are_a_share_of_each_class_and_never_its_only_image() -> None:
    labels = np.array([0] * 50 + [1] * 10 + [2] * 2 + [3])
    fit, held = split_held_out(labels, 0.1, seed=0)
    assert np.bincount(labels[held], minlength=4).tolist() == [5, 1, 1, 0]
    np.testing.assert_array_equal(np.sort(np.concatenate([fit, held])), np.arange(len(labels)))
    assert not np.array_equal(held, split_held_out(labels, 0.1, seed=1)[1])
    with pytest.raises(UserError, match="give one in lr_per_256"):
        split_held_out(np.arange(4), 0.1, seed=0)


def test_a_rate_that_ends_in_nan_is_never_chosen_and_is_an_error_if_it_is_the_only_one() -> None:
    assert probed(classes_of(1), lrs=(10.0, 1e38)).lr == 10.0
    with pytest.raises(UserError, match="ends in NaN at lr_per_256 = 1e\\+38"):
        probed(classes_of(1), lrs=(1e38,))


def test_a_constant_feature_and_a_batch_larger_than_the_split_are_no_error() -> None:
    x, y = classes_of(0)
    x[:, 2] = 7
    config = LinearConfig(lr_per_256=(10.0,), batch=4096, epochs=60)
    assert linear_probe(x, y, x, y, classes=4, config=config, seed=0).accuracy > 0.8
