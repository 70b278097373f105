"""The full size without writing it, and the tensor formulas against the upstream classes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omnivoice_triton.checkpoint import dimensions, make, tensors, weights
from tests.checkpoint.helpers import (
    DATA,
    GOLDEN_IDS,
    GOLDEN_TEXT,
    load_json,
)


@pytest.fixture(scope="module")
def full_plan() -> make._Plan:
    return make._Plan("full", 0, "float32")


def test_full_has_the_real_tensors(full_plan: make._Plan) -> None:
    """Figures of k2-fsa/OmniVoice at revision c5fdb5cc: counts, parameters and the exact sizes of both files."""
    lm, codec = full_plan.lm, full_plan.codec
    assert (len(lm), len(codec)) == (313, 527)
    assert sum(spec.size for spec in lm.values() if spec.dtype == "F32") == 612_577_280
    assert weights.file_bytes(lm) == 2_450_344_112
    assert weights.file_bytes(codec, full_plan.codec_metadata) == 805_665_628
    shapes = {name: spec.shape for name, spec in (lm | codec).items()}
    for name, shape in {
        "codebook_layer_offsets": (8,),
        "llm.embed_tokens.weight": (151_676, 1024),
        "llm.layers.27.self_attn.q_proj.weight": (2048, 1024),
        "llm.layers.0.self_attn.k_proj.weight": (1024, 1024),
        "llm.layers.5.self_attn.k_norm.weight": (128,),
        "llm.layers.9.mlp.down_proj.weight": (1024, 3072),
        "audio_heads.weight": (8200, 1024),
        "acoustic_decoder.block.1.conv_t1.weight": (512, 256, 10),
        "acoustic_decoder.conv2.weight": (1, 32, 7),
        "acoustic_encoder.block.4.conv1.weight": (2048, 1024, 6),
        "quantizer.quantizers.7.codebook.embed": (1024, 64),
        "semantic_model.encoder.pos_conv_embed.conv.parametrizations.weight.original1": (768, 48, 128),
        "fc2.weight": (256, 1024),
    }.items():
        assert shapes[name] == shape, name
    assert {spec.dtype for name, spec in (lm | codec).items() if name != "codebook_layer_offsets"} == {"F32"}


def test_full_has_the_real_config(full_plan: make._Plan) -> None:
    real = load_json(DATA / "full/config.json")
    assert full_plan.config.pop("omnivoice_triton") == {"recipe": 1, "seed": 0, "size": "full", "weights": "random"}
    assert full_plan.config == real
    # sha256 of the files in the hub repository, so that an edit of the templates doesn't go unseen.
    for name, digest in {
        "config.json": "5e359117e13b420c5e0c925d4aba650d624767131f1d1746928f8b850d5dc372",
        "tokenizer_config.json": "49f78845596a82bf15c83673794bdf9f76f812b11f60ab6a2239d9be65b00676",
        "audio_tokenizer/config.json": "eefb20806f7104e77c9a5277c9df0f9bb8826b08eb1d4e8ab2b9829b6ef9fac1",
        "audio_tokenizer/preprocessor_config.json": "ae61eea88558608ee2fa86d2aec9fce8d99a5ff75d09cb7651ccce21ae1d9084",
    }.items():
        assert hashlib.sha256((DATA / "full" / name).read_bytes()).hexdigest() == digest, name


def test_full_has_the_real_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(make._template_bytes("full", name))
    assert (tmp_path / "tokenizer.json").stat().st_size == 11_423_986
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    assert tokenizer(GOLDEN_TEXT).input_ids == GOLDEN_IDS
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (151_643, 151_645)


def _codec_config(name: str, **changes: Any) -> dict[str, Any]:
    config = load_json(DATA / name / "audio_tokenizer/config.json")
    for key, value in changes.items():
        section, _, leaf = key.rpartition("__")
        (config[section] if section else config)[leaf] = value
    return config


def _lm_config(name: str, **changes: Any) -> dict[str, Any]:
    config = load_json(DATA / name / "config.json")
    config["llm_config"] |= changes
    return config


def _upstream_tensors(model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
    names = {torch.float32: "F32", torch.int64: "I64"}
    return {name: (tuple(value.shape), names[value.dtype]) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "config",
    [
        _lm_config("full"),
        _lm_config("tiny"),
        _lm_config("tiny", attention_bias=True),
        _lm_config("tiny", num_attention_heads=6, num_key_value_heads=3, head_dim=10, hidden_size=50),
    ],
    ids=["full", "tiny", "biases", "odd"],
)
def test_language_model_formulas_equal_the_upstream_class(config: dict[str, Any]) -> None:
    from omnivoice.models.omnivoice import OmniVoice, OmniVoiceConfig

    computed = tensors.language_model_tensors(dimensions.read_language_model(config))
    with torch.device("meta"):
        model = OmniVoice(OmniVoiceConfig(**json.loads(json.dumps(config))))
    assert {name: tuple(spec) for name, spec in computed.items()} == _upstream_tensors(model)


@pytest.mark.parametrize(
    "config",
    [
        _codec_config("full"),
        _codec_config("tiny"),
        _codec_config("tiny", semantic_model_config__conv_bias=True, semantic_model_config__feat_extract_norm="layer"),
        _codec_config("tiny", semantic_model_config__feat_proj_layer_norm=False, block_dilations=[1, 2, 3]),
        _codec_config("tiny", strides=[2, 1], channel_ratios=[2, 3], kernel_size=5, unit_kernel_size=7),
        _codec_config("tiny", target_bandwidths=[0.5, 1], codebook_size=512, codebook_dim=12),
        _codec_config(
            "tiny",
            acoustic_model_config__downsampling_ratios=[4, 8, 5, 6],
            acoustic_model_config__upsampling_ratios=[6, 5, 8, 4],
            acoustic_model_config__decoder_hidden_size=48,
        ),
    ],
    ids=["full", "tiny", "conv-bias", "no-projection-norm", "strided", "four-codebooks", "ratios"],
)
def test_codec_formulas_equal_the_upstream_class(config: dict[str, Any]) -> None:
    from transformers import HiggsAudioV2TokenizerConfig, HiggsAudioV2TokenizerModel

    computed = tensors.codec_tensors(dimensions.read_codec(config))
    with torch.device("meta"):
        model = HiggsAudioV2TokenizerModel(HiggsAudioV2TokenizerConfig(**json.loads(json.dumps(config))))
    assert {name: tuple(spec) for name, spec in computed.items()} == _upstream_tensors(model)
