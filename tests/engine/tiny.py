"""Small OmniVoice models with sane random weights, and tasks for them."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch

# These models are so small that a second thread costs more than it brings: 50 times more when the machine is busy.
torch.set_num_threads(1)


class CharTokenizer:
    """Stands in for the text tokenizer: one id a character, special tokens as their own ids."""

    SPECIAL = (
        "<|denoise|>", "<|lang_start|>", "<|lang_end|>", "<|instruct_start|>", "<|instruct_end|>",
        "<|text_start|>", "<|text_end|>",
    )  # fmt: skip

    def __call__(self, text: str, return_tensors: str | None = None, add_special_tokens: bool = True) -> Any:
        ids = []
        while text:
            token = next((s for s in self.SPECIAL if text.startswith(s)), text[0])
            ids.append(self.SPECIAL.index(token) if len(token) > 1 else 16 + ord(token) % 48)
            text = text[len(token) :]
        return SimpleNamespace(input_ids=torch.tensor([ids]) if return_tensors == "pt" else ids)


def make_model(
    *,
    hidden: int = 32,
    intermediate: int = 48,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    codebooks: int = 8,
    audio_vocab: int = 33,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Any:
    """An upstream OmniVoice of these dimensions without a codec."""
    from omnivoice.models.omnivoice import OmniVoice, OmniVoiceConfig
    from transformers import Qwen3Config

    llm = Qwen3Config(
        vocab_size=max(64, audio_vocab),  # upstream looks audio ids up there too, and drops what it finds
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=4096,
    )
    config = OmniVoiceConfig(
        llm_config=llm,
        num_audio_codebook=codebooks,
        audio_vocab_size=audio_vocab,
        audio_mask_id=audio_vocab - 1,
        audio_codebook_weights=[1] * codebooks,
    )
    model = OmniVoice(config).eval()
    model.text_tokenizer = CharTokenizer()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight") or "layernorm" in name:
                parameter.copy_(1 + 0.1 * noise)
            elif "embed" in name:
                parameter.copy_(noise)
            else:
                gain = 4 if "audio_heads" in name else 0.3 if "o_proj" in name else 0.15 if "down" in name else 1
                parameter.copy_(gain / math.sqrt(parameter.shape[1]) * noise)
    return model.to(dtype)


def make_task(
    model: Any,
    frames: list[int],
    *,
    texts: list[str] | None = None,
    reference_frames: list[int] | None = None,
    instructs: list[str | None] | None = None,
    langs: list[str | None] | None = None,
    seed: int = 0,
) -> Any:
    """An upstream GenerationTask; `reference_frames` makes it a cloning task with random codes."""
    from omnivoice.models.omnivoice import GenerationTask

    n = len(frames)
    generator = torch.Generator().manual_seed(seed)
    references: list[torch.Tensor | None] = [None] * n
    if reference_frames is not None:
        shape, high = model.config.num_audio_codebook, model.config.audio_vocab_size - 1
        references = [torch.randint(0, high, (shape, r), generator=generator) for r in reference_frames]
    return GenerationTask(
        batch_size=n,
        texts=texts or [f"text number {i} {'ab ' * i}" for i in range(n)],
        target_lens=frames,
        langs=langs or [None] * n,
        instructs=instructs or [None] * n,
        ref_texts=[None if r is None else "what it says" for r in references],
        ref_audio_tokens=references,
        ref_rms=[None] * n,
    )


def generation_config(**options: Any) -> Any:
    """Upstream's OmniVoiceGenerationConfig."""
    from omnivoice.models.omnivoice import OmniVoiceGenerationConfig

    return OmniVoiceGenerationConfig(**options)
