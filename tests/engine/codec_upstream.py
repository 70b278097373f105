"""A small tokenizer of upstream's class with random weights that a wrong decoder can't pass by luck."""

from __future__ import annotations

import copy
import math
from functools import lru_cache
from typing import Any

import torch

STRIDES = (8, 5)
"""Of the first two blocks, which make the context (10 frames on either side, as in the real codec) and have both kinds
of stride, even and odd; the other three only make it slow."""
REAL_STRIDES = (8, 5, 4, 2, 3)
HOP = 40
CODEBOOKS, CODEBOOK_SIZE = 8, 32


def random_(tensor: torch.Tensor, name: str, g: torch.Generator) -> None:
    """Gains that keep the signal near 1 through the whole chain; no alpha is 1, no bias and no codebook is 0."""
    draw = torch.randn(tensor.shape, generator=g, dtype=tensor.dtype)
    if name.endswith("alpha"):
        tensor.copy_((1 + 0.3 * draw).abs() + 0.05)
    elif name.endswith("embed"):
        tensor.copy_(draw)
    elif name.endswith("bias"):
        tensor.copy_(0.1 * draw)
    else:
        fan = 2 * tensor.shape[0] if "conv_t1" in name else math.prod(tensor.shape[1:])
        tensor.copy_(draw * (0.5 if "res_unit" in name else 1.0) / math.sqrt(fan))


@lru_cache(maxsize=4)
def small_tokenizer(strides: tuple[int, ...] = STRIDES, dtype: torch.dtype = torch.float32) -> Any:
    """HiggsAudioV2TokenizerModel on the CPU with 32 channels at most. It is shared: don't change it."""
    if dtype != torch.float32:
        return copy.deepcopy(small_tokenizer(strides)).to(dtype)
    from transformers import HiggsAudioV2TokenizerConfig, HiggsAudioV2TokenizerModel

    config = HiggsAudioV2TokenizerConfig(
        acoustic_model_config={
            "model_type": "dac",
            "decoder_hidden_size": 32,
            "encoder_hidden_size": 1,
            "hidden_size": 12,
            "downsampling_ratios": list(strides),
            "upsampling_ratios": list(strides),
        },
        semantic_model_config={
            "model_type": "hubert",
            "hidden_size": 20,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "conv_dim": [4] * 7,
        },
        codebook_size=CODEBOOK_SIZE,
        codebook_dim=6,
        # kbit/s for eight codebooks of 5 bits; frames per second follow from the strides.
        target_bandwidths=[8 * 5 * (24_000 // math.prod(strides)) / 1000],
        sample_rate=24_000,
    )
    model = HiggsAudioV2TokenizerModel(config).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith(("quantizer.", "acoustic_decoder.", "fc2.")) and "cluster" not in name:
                random_(tensor, name, g)
    return model


def random_codes(frames: int, seed: int = 0) -> torch.Tensor:
    """(Q, frames)."""
    g = torch.Generator().manual_seed(1000 * seed + frames)
    return torch.randint(0, CODEBOOK_SIZE, (CODEBOOKS, frames), generator=g)


def upstream_decode(model: Any, codes: torch.Tensor) -> torch.Tensor:
    """Samples (frames * hop,) by upstream's own method."""
    with torch.no_grad():
        return model.decode(codes[None]).audio_values[0, 0]
