"""Official parameters are converted and converted back unchanged, and every one has a counterpart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine.golden_files import HEADS, TAGS, arrays, decay_mask, tiny_model

from umd_bench.engine.published.small_vision_conversion import from_official, to_official
from umd_bench.engine.training.optim import is_decayed


@pytest.mark.parametrize("tag", TAGS)
def test_converting_to_ours_and_back_is_exact(tag: str) -> None:
    params = arrays(f"params_{tag}")
    back = to_official(from_official(params), HEADS)
    assert back.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_a_stack_of_blocks_keeps_its_order() -> None:
    params = arrays("params_adaln1_nc0")
    kernel = params["Encoder/ScanCheckpointEncoder1DBlock_0/MlpBlock_0/Dense_0/kernel"]
    state = from_official(params)
    assert torch.equal(state["blocks.1.mlp.fc1.weight"], torch.from_numpy(kernel[1].T.copy()))


@pytest.mark.parametrize("name", ["Encoder/ScanCheckpointEncoder1DBlock_0/Dense_9/kernel", "nonsense/kernel"])
def test_an_unknown_parameter_is_refused(name: str) -> None:
    with pytest.raises(KeyError):
        from_official({**arrays("params_adaln1_nc0"), name: np.zeros((2, 3), np.float32)})


def test_weight_decay_applies_to_the_official_parameters() -> None:
    mask = decay_mask()
    # A value of 1 marks each decayed official parameter; each of ours must be all 1 if it is decayed and all 0 if not.
    params = arrays("params_adaln1_nc10")
    marked = from_official({name: np.full_like(value, mask[name]) for name, value in params.items()})
    for name, _ in tiny_model("adaln1_nc10").named_parameters():
        assert (marked[name] == is_decayed(name)).all(), name
