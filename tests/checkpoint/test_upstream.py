"""What upstream makes of a tiny checkpoint: it loads whole, tells codes and frames apart, and speaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from omnivoice_triton import checkpoint
from tests.checkpoint.helpers import (
    GOLDEN_TEXT,
)


def test_upstream_finds_every_tensor_and_no_other(tiny: Path) -> None:
    from omnivoice import OmniVoice
    from transformers import HiggsAudioV2TokenizerModel

    for loaded, info in (
        OmniVoice.from_pretrained(str(tiny), train=True, output_loading_info=True),
        HiggsAudioV2TokenizerModel.from_pretrained(str(tiny / "audio_tokenizer"), output_loading_info=True),
    ):
        assert not any(info.values()), info
        assert all(value.dtype in (torch.float32, torch.int64) for value in loaded.state_dict().values())


def test_upstream_gets_the_values_of_the_file(tiny: Path, upstream: Any) -> None:
    stored = load_file(tiny / "model.safetensors")
    loaded = upstream.state_dict()
    assert stored.keys() == {name for name in loaded if not name.startswith("audio_tokenizer.")}
    for name in ("llm.layers.3.mlp.up_proj.weight", "audio_heads.weight", "codebook_layer_offsets"):
        np.testing.assert_array_equal(loaded[name].numpy(), stored[name])


def test_the_tiny_tokenizer_spells_bytes(upstream: Any) -> None:
    tokenizer = upstream.text_tokenizer
    assert tokenizer.convert_tokens_to_ids(list(checkpoint.SPECIAL_TOKENS)) == list(range(282, 289))
    for text in ("Hello, it's 3 o'clock.", "你好，世界", "e\u0301 [laughter]"):
        ids = tokenizer(text).input_ids
        assert max(ids) < 256
        assert tokenizer.decode(ids) == text.replace("e\u0301", "é")  # NFC, as the real one.
    ids = tokenizer(GOLDEN_TEXT).input_ids
    assert [value for value in ids if value > 255] == [283, 284, 285, 286, 287, 288]


@pytest.mark.parametrize("frames", [13, 14, 25, 40])
def test_the_codec_encodes_and_decodes(upstream: Any, frames: int) -> None:
    sweep = 0.2 * torch.sin(torch.cumsum(torch.linspace(0.02, 0.8, frames * 960), 0))
    with torch.inference_mode():
        codes = upstream.audio_tokenizer.encode(sweep[None, None]).audio_codes
        audio = upstream.audio_tokenizer.decode(codes).audio_values
    assert codes.shape == (1, 8, frames)
    assert audio.shape == (1, 1, frames * 960)
    assert min(len(set(row.tolist())) for row in codes[0]) > frames // 4
    assert 0.1 < audio.abs().max() < 1.0
    assert audio.std() > 0.02


def test_the_codec_tells_codes_apart(upstream: Any) -> None:
    """Item 0 is plain; item 1 + q has one code of codebook q changed."""
    codes = torch.randint(0, 1024, (1, 8, 20), generator=torch.Generator().manual_seed(0)).repeat(9, 1, 1)
    for codebook in range(8):
        codes[1 + codebook, codebook, 10] = (codes[0, codebook, 10] + 1) % 1024
    with torch.inference_mode():
        audio = upstream.audio_tokenizer.decode(codes).audio_values[:, 0]
    change = (audio[1:] - audio[0]).abs().amax(dim=1)
    assert change.min() > 1e-2, change


def test_logits_are_not_flat_and_positions_differ(upstream: Any) -> None:
    frames = 40
    text = upstream.text_tokenizer("<|text_start|>Hello there.<|text_end|>", return_tensors="pt").input_ids
    ids = torch.full((1, 8, text.shape[1] + frames), 1024)
    ids[:, :, : text.shape[1]] = text
    mask = torch.arange(ids.shape[-1])[None] >= text.shape[1]
    everything = torch.ones(1, 1, ids.shape[-1], ids.shape[-1], dtype=torch.bool)
    with torch.inference_mode():
        logits = upstream(ids, mask, attention_mask=everything).logits[0, :, -frames:]  # [C, T, V]
    assert 3.0 < logits.std() < 5.0
    best = logits.topk(2, dim=-1).values
    assert (best[..., 0] - best[..., 1]).median() > 0.2
    assert logits.std(dim=1).mean() > 0.5, "all masked frames look alike"


@pytest.mark.parametrize("voice", ["auto", "clone", "design"])
def test_upstream_speaks_in_every_voice_mode(upstream: Any, voice: str) -> None:
    time_s = torch.arange(12_000) / 24_000  # The shortest reference that is promised: half a second.
    reference = 0.2 * torch.sin(2 * torch.pi * 220 * time_s) * (1 + torch.sin(2 * torch.pi * 5 * time_s))
    options: dict[str, Any] = {
        "auto": {},
        "clone": {"ref_audio": (reference, 24_000), "ref_text": "hm"},
        "design": {"instruct": "female, low pitch"},
    }[voice]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        audio = upstream.generate("Hello.", duration=1.0, num_step=4, **options)[0]
    assert audio.ndim == 1
    assert len(audio) > 24_000  # Padding added, nothing taken for silence.
    assert np.isfinite(audio).all()
    middle = audio[4800:-4800]
    assert np.sqrt(np.mean(middle**2)) > 0.02
    assert 0.1 < np.abs(audio).max() < 1.0
