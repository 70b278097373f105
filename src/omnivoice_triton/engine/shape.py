"""The language model's dimensions, read from an upstream config, and the tensors that a model of them has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omnivoice_triton.speech import UpstreamChanged

TEXT_EMBEDDING = "llm.embed_tokens.weight"


@dataclass(frozen=True)
class BackboneShape:
    """Dimensions of the language model, with the letters of the model's description."""

    hidden: int
    """H"""
    intermediate: int
    """I"""
    layers: int
    """L"""
    q_heads: int
    kv_heads: int
    head_dim: int
    """D"""
    codebooks: int
    """C"""
    audio_vocab: int
    """Ids of one codebook; the last is the mask."""
    eps: float

    @property
    def mask_id(self) -> int:
        """The id of an undecided cell."""
        return self.audio_vocab - 1

    @property
    def qkv_width(self) -> int:
        """Columns of the fused q, k, v."""
        return (self.q_heads + 2 * self.kv_heads) * self.head_dim

    @property
    def attention_width(self) -> int:
        """Columns that attention puts out."""
        return self.q_heads * self.head_dim

    @property
    def logits_width(self) -> int:
        """Columns of the audio heads."""
        return self.codebooks * self.audio_vocab

    @classmethod
    def from_config(cls, config: Any) -> BackboneShape:
        """Read an upstream config.

        Raises:
            UpstreamChanged: it describes a model that this engine doesn't compute.
        """
        llm = config.llm_config
        kinds = set(getattr(llm, "layer_types", None) or ["full_attention"])
        wanted = (
            (llm.model_type == "qwen3", f"llm_config.model_type={llm.model_type!r}, wanted 'qwen3'"),
            (llm.hidden_act == "silu", f"hidden_act={llm.hidden_act!r}, wanted 'silu'"),
            (not llm.attention_bias, "attention_bias=True, wanted False"),
            (kinds == {"full_attention"}, f"layer_types={sorted(kinds)}, wanted full_attention only"),
            (
                config.audio_mask_id == config.audio_vocab_size - 1,
                f"audio_mask_id={config.audio_mask_id}, wanted the last of {config.audio_vocab_size} ids",
            ),
        )
        for holds, complaint in wanted:
            if not holds:
                raise UpstreamChanged(f"the turbo engine can't run this model: {complaint}")
        return cls(
            hidden=llm.hidden_size,
            intermediate=llm.intermediate_size,
            layers=llm.num_hidden_layers,
            q_heads=llm.num_attention_heads,
            kv_heads=llm.num_key_value_heads,
            head_dim=llm.head_dim,
            codebooks=config.num_audio_codebook,
            audio_vocab=config.audio_vocab_size,
            eps=llm.rms_norm_eps,
        )

    def tensors(self, text_vocab: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor of the upstream language model."""
        h, i, d = self.hidden, self.intermediate, self.head_dim
        yield "codebook_layer_offsets", (self.codebooks,)
        yield TEXT_EMBEDDING, (text_vocab, h)
        for layer in range(self.layers):
            at = f"llm.layers.{layer}"
            yield f"{at}.self_attn.q_proj.weight", (self.attention_width, h)
            yield f"{at}.self_attn.k_proj.weight", (self.kv_heads * d, h)
            yield f"{at}.self_attn.v_proj.weight", (self.kv_heads * d, h)
            yield f"{at}.self_attn.o_proj.weight", (h, self.attention_width)
            yield f"{at}.self_attn.q_norm.weight", (d,)
            yield f"{at}.self_attn.k_norm.weight", (d,)
            yield f"{at}.mlp.gate_proj.weight", (i, h)
            yield f"{at}.mlp.up_proj.weight", (i, h)
            yield f"{at}.mlp.down_proj.weight", (h, i)
            yield f"{at}.input_layernorm.weight", (h,)
            yield f"{at}.post_attention_layernorm.weight", (h,)
        yield "llm.norm.weight", (h,)
        yield "audio_embeddings.weight", (self.logits_width, h)
        yield "audio_heads.weight", (self.logits_width, h)
