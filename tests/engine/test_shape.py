"""The dimensions of an upstream config, and what another architecture is told."""

from __future__ import annotations

from typing import Any

import pytest

from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.speech import UpstreamChanged

from .tiny import make_model


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"audio_mask_id": 0}, "audio_mask_id=0, wanted the last of 33 ids"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "full_attention only"),
    ],
)
def test_another_architecture_is_refused(change: dict[str, Any], complaint: str) -> None:
    model = make_model()
    for name, value in change.items():
        setattr(model.config if hasattr(model.config, name) else model.config.llm_config, name, value)
    with pytest.raises(UpstreamChanged, match=complaint):
        BackboneShape.from_config(model.config)
