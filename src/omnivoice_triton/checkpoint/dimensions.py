"""The dimensions of a checkpoint, read from its two config files and held against each other.

Upstream builds whatever a config says and fills what the file lacks with random numbers, so a config that doesn't fit
would be found out only by ear. Optional keys have the defaults of upstream's own config classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omnivoice_triton.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from omnivoice_triton.speech import CheckpointError


@dataclass(frozen=True)
class LanguageModelDims:
    """Dimensions of the Qwen3 backbone and of the audio embeddings and heads around it."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    text_vocab: int
    codebooks: int
    audio_vocab: int
    """Ids of one codebook, the mask id included."""
    attention_bias: bool = False


@dataclass(frozen=True)
class SemanticDims:
    """Dimensions of the HuBERT model inside the codec."""

    hidden: int
    intermediate: int
    layers: int
    conv_dims: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    conv_bias: bool
    group_norm: bool
    """Norm after the first convolution only, as in HuBERT base; else after each."""
    projection_norm: bool
    position_kernel: int
    position_groups: int


@dataclass(frozen=True)
class CodecDims:
    """Dimensions of the Higgs Audio V2 tokenizer."""

    sample_rate_hz: int
    hop: int
    """Samples in a frame."""
    encoder_width: int
    decoder_width: int
    latent: int
    """Channels between the DAC coder and the quantizer."""
    down_strides: tuple[int, ...]
    up_strides: tuple[int, ...]
    quantizers: int
    codebook_size: int
    codebook_dim: int
    kernel: int
    unit_kernel: int
    units: int
    """Residual units in each semantic block."""
    semantic_strides: tuple[int, ...]
    channel_ratios: tuple[int, ...]
    semantic: SemanticDims


def read_language_model(config: Mapping[str, Any], source: str = "config.json") -> LanguageModelDims:
    """The language model's dimensions from the content of config.json; `source` names the file in errors.

    Raises:
        CheckpointError: another architecture, a missing value, or values that don't fit each other.
    """
    top = _Section(config, f"{source}: ")
    top.require("model_type", "omnivoice")
    llm = top.section("llm_config")
    llm.require("model_type", "qwen3")
    dims = LanguageModelDims(
        hidden=llm.count("hidden_size"),
        intermediate=llm.count("intermediate_size"),
        layers=llm.count("num_hidden_layers"),
        heads=llm.count("num_attention_heads"),
        kv_heads=llm.count("num_key_value_heads"),
        head_dim=llm.count("head_dim", 128),
        text_vocab=llm.count("vocab_size"),
        codebooks=top.count("num_audio_codebook", 8),
        audio_vocab=top.count("audio_vocab_size", 1025),
        attention_bias=llm.flag("attention_bias", False),
    )
    if dims.heads % dims.kv_heads:
        llm.fail(f"num_attention_heads={dims.heads} is not a multiple of num_key_value_heads={dims.kv_heads}")
    if dims.head_dim % 2:
        llm.fail(f"head_dim={dims.head_dim} must be even for rotary positions")
    layer_types = llm.values.get("layer_types")
    if layer_types is not None and list(layer_types) != ["full_attention"] * dims.layers:
        llm.fail(f"layer_types must be num_hidden_layers={dims.layers} times 'full_attention'")
    if dims.text_vocab < dims.audio_vocab:
        # Upstream looks every id up in the text embedding, audio ids too, and then discards those rows.
        llm.fail(f"vocab_size={dims.text_vocab} must be at least audio_vocab_size={dims.audio_vocab}")
    mask_id = top.count("audio_mask_id", 1024)
    if mask_id != dims.audio_vocab - 1:
        top.fail(f"audio_mask_id={mask_id} must be the last of audio_vocab_size={dims.audio_vocab} ids")
    return dims


def read_codec(config: Mapping[str, Any], source: str = "audio_tokenizer/config.json") -> CodecDims:
    """The codec's dimensions from the content of audio_tokenizer/config.json; `source` names the file in errors.

    Raises:
        CheckpointError: another architecture, a missing value, or values that don't fit each other.
    """
    top = _Section(config, f"{source}: ")
    top.require("model_type", "higgs_audio_v2_tokenizer")
    acoustic = top.section("acoustic_model_config")
    acoustic.require("model_type", "dac")
    down = acoustic.counts("downsampling_ratios")
    up = acoustic.counts("upsampling_ratios", down[::-1])
    rate_hz, hop = top.count("sample_rate", SAMPLE_RATE_HZ), math.prod(down)
    if rate_hz != SAMPLE_RATE_HZ or rate_hz != hop * FRAME_RATE_HZ:
        top.fail(
            f"sample_rate={rate_hz} and a hop of {hop} samples are not {SAMPLE_RATE_HZ} Hz, {FRAME_RATE_HZ} frames/s"
        )
    if math.prod(up) != hop:
        acoustic.fail(f"upsampling_ratios={list(up)} and downsampling_ratios={list(down)} have different products")
    decoder_width = acoustic.count("decoder_hidden_size")
    if decoder_width % 2 ** len(up):
        acoustic.fail(f"decoder_hidden_size={decoder_width} can't be halved {len(up)} times")
    strides, ratios = top.counts("strides", (1, 1)), top.counts("channel_ratios", (1, 1))
    if len(strides) != len(ratios):
        top.fail(f"strides={list(strides)} and channel_ratios={list(ratios)} differ in length")
    semantic = _read_semantic(top, rate_hz, hop)
    codebook_size = top.count("codebook_size", 1024)
    bits_per_s = FRAME_RATE_HZ * math.ceil(math.log2(codebook_size)) if codebook_size > 1 else FRAME_RATE_HZ
    return CodecDims(
        sample_rate_hz=rate_hz,
        hop=hop,
        encoder_width=acoustic.count("encoder_hidden_size"),
        decoder_width=decoder_width,
        latent=acoustic.count("hidden_size"),
        down_strides=down,
        up_strides=up,
        # Not in the file as such: the widest bandwidth (kbit/s) says how many codebooks there are.
        quantizers=int(1000 * top.numbers("target_bandwidths")[-1] // bits_per_s),
        codebook_size=codebook_size,
        codebook_dim=top.count("codebook_dim", 64),
        kernel=top.count("kernel_size", 3),
        unit_kernel=top.count("unit_kernel_size", 3),
        units=len(top.counts("block_dilations", (1, 1))),
        semantic_strides=strides,
        channel_ratios=ratios,
        semantic=semantic,
    )


def check_pair(lm: LanguageModelDims, codec: CodecDims, source: str = "audio_tokenizer/config.json") -> None:
    """Raise CheckpointError unless the codec can decode what the language model predicts."""
    if codec.quantizers != lm.codebooks:
        raise CheckpointError(
            f"{source}: target_bandwidths make {codec.quantizers} codebooks, but num_audio_codebook={lm.codebooks}"
        )
    if codec.codebook_size != lm.audio_vocab - 1:
        raise CheckpointError(
            f"{source}: codebook_size={codec.codebook_size} must be audio_vocab_size={lm.audio_vocab} less the mask id"
        )


def _read_semantic(top: _Section, rate_hz: int, hop: int) -> SemanticDims:
    hubert = top.section("semantic_model_config")
    hubert.require("model_type", "hubert")
    # Variants of HuBERT with other tensors: nobody has trained this codec with them.
    hubert.require("conv_pos_batch_norm", False, optional=True)
    hubert.require("adapter_attn_dim", None, optional=True)
    norm = hubert.values.get("feat_extract_norm", "group")
    if norm not in ("group", "layer"):
        hubert.fail(f"feat_extract_norm must be 'group' or 'layer', not {norm!r}")
    dims = SemanticDims(
        hidden=hubert.count("hidden_size"),
        intermediate=hubert.count("intermediate_size"),
        layers=hubert.count("num_hidden_layers"),
        conv_dims=hubert.counts("conv_dim"),
        conv_kernels=hubert.counts("conv_kernel"),
        conv_bias=hubert.flag("conv_bias", False),
        group_norm=norm == "group",
        projection_norm=hubert.flag("feat_proj_layer_norm", True),
        position_kernel=hubert.count("num_conv_pos_embeddings", 128),
        position_groups=hubert.count("num_conv_pos_embedding_groups", 16),
    )
    conv_strides = hubert.counts("conv_stride")
    if not len(dims.conv_dims) == len(dims.conv_kernels) == len(conv_strides):
        hubert.fail("conv_dim, conv_kernel and conv_stride differ in length")
    for name, divisor in (
        ("num_attention_heads", hubert.count("num_attention_heads")),
        ("num_conv_pos_embedding_groups", dims.position_groups),
    ):
        if dims.hidden % divisor:
            hubert.fail(f"hidden_size={dims.hidden} is not a multiple of {name}={divisor}")
    downsample = top.count("downsample_factor", 320)
    if math.prod(conv_strides) != downsample:
        hubert.fail(f"conv_stride={list(conv_strides)} doesn't multiply to downsample_factor={downsample}")
    semantic_hz = top.count("semantic_sample_rate", 16_000)
    if (hop * semantic_hz) % (rate_hz * downsample):
        top.fail(f"a hop of {hop} samples is no whole number of semantic frames ({downsample} at {semantic_hz} Hz)")
    return dims


@dataclass(frozen=True)
class _Section:
    """One object of a config file; every error names the file and the key."""

    values: Mapping[str, Any]
    where: str

    def fail(self, problem: str) -> None:
        raise CheckpointError(self.where + problem)

    def section(self, name: str) -> _Section:
        value = self._get(name, None)
        if not isinstance(value, Mapping):
            self.fail(f"{name} must be an object, not {value!r}")
        return _Section(value, f"{self.where}{name}.")

    def require(self, name: str, wanted: object, *, optional: bool = False) -> None:
        value = self.values.get(name, wanted if optional else None)
        if value != wanted:
            self.fail(f"{name} is {value!r}, but only {wanted!r} is supported")

    def count(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.fail(f"{name} must be a whole number of at least 1, not {value!r}")
        return int(value)

    def counts(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        value = self._get(name, default)
        if (
            not isinstance(value, list | tuple)
            or not value
            or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value)
        ):
            self.fail(f"{name} must be a list of whole numbers of at least 1, not {value!r}")
        return tuple(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        value = self._get(name, None)
        if (
            not isinstance(value, list | tuple)
            or not value
            or not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in value)
        ):
            self.fail(f"{name} must be a list of numbers above 0, not {value!r}")
        return tuple(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            self.fail(f"{name} must be true or false, not {value!r}")
        return bool(value)

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name, default)
        if value is None:
            self.fail(f"{name} is missing")
        return value
