"""How the engine's work is surrounded; streams themselves need a GPU."""

from __future__ import annotations

import torch

from omnivoice_triton.engine.stream import EngineStream


def test_tensors_made_inside_outlive_a_callers_inference_mode() -> None:
    stream = EngineStream(torch.device("cpu"))
    with torch.inference_mode():
        caller = stream.join_caller()
        with stream.entered():
            made = torch.zeros(2)
            assert not torch.is_grad_enabled()
        stream.hand_over([made], caller)
        assert torch.is_inference_mode_enabled()
    assert caller is None
    assert not made.is_inference()
    made += 1  # refused of an inference tensor
