"""Each fault that a model directory can have is named; what a sound one is, and how large."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from omnivoice_triton import checkpoint
from omnivoice_triton.checkpoint import files
from omnivoice_triton.speech import CheckpointError, InputError
from tests.checkpoint.helpers import (
    CODEC,
    LM,
    NORM,
    UP,
    edit_json,
    edit_tensors,
    load_json,
)


def _delete(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(content)


def _truncate(name: str) -> Callable[[Path], object]:
    return lambda path: os.truncate(path / name, (path / name).stat().st_size - 100)


def _set(name: str, *keys: str, value: object) -> Callable[[Path], object]:
    return lambda path: edit_json(path / name, *keys, value=value)


def _tensors(name: str, edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda path: edit_tensors(path / name, edit)


def _drop_token(path: Path) -> None:
    tokenizer = load_json(path / "tokenizer.json")
    tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["content"] != "<|denoise|>"]
    (path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


LLM, ACOUSTIC, SEMANTIC = "llm_config", "acoustic_model_config", "semantic_model_config"
CODEC_CONFIG = "audio_tokenizer/config.json"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"no {name}": (_delete(name), f"lacks {name}") for name in files.LAYOUT},
    "two files missing": (lambda p: (_delete(LM)(p), _delete("tokenizer.json")(p)), f"lacks {LM} and 1 more"),
    "codec missing": (lambda p: shutil.rmtree(p / "audio_tokenizer"), f"lacks {CODEC_CONFIG} and 2 more"),
    "bad json": (_write("config.json", b'{"model_type": '), "config.json is not valid JSON"),
    "binary json": (_write(CODEC_CONFIG, b"\xff\xfe\x00"), "config.json is not valid JSON"),
    "json list": (_write("tokenizer_config.json", b"[]"), "tokenizer_config.json must hold a JSON object, not list"),
    "truncated": (_truncate(LM), "model.safetensors is truncated or corrupt"),
    "truncated codec": (_truncate(CODEC), "audio_tokenizer/model.safetensors is truncated or corrupt"),
    "no safetensors": (_write(LM, b"not a model at all"), "is truncated or corrupt"),
    "empty": (_write(LM, b""), "is truncated or corrupt"),
    "lfs pointer": (_write(LM, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "tensor missing": (_tensors(LM, lambda t: t.pop(UP)), f"lacks {UP} that config.json demands"),
    "tensors missing": (_tensors(LM, lambda t: (t.pop(UP), t.pop(NORM))), f"lacks 2 tensors (first {UP})"),
    "no offsets": (_tensors(LM, lambda t: t.pop("codebook_layer_offsets")), "lacks codebook_layer_offsets"),
    "codec tensor missing": (_tensors(CODEC, lambda t: t.pop("fc2.bias")), "lacks fc2.bias"),
    "surplus": (_tensors(LM, lambda t: t.update({"lm_head.weight": t[NORM]})), "has lm_head.weight that config.json"),
    "renamed": (_tensors(LM, lambda t: t.update({"x": t.pop(UP)})), f"lacks {UP} .*has x in surplus"),
    "misshaped": (
        _tensors(LM, lambda t: t.update({UP: np.ascontiguousarray(t[UP].T)})),
        f"{UP} of another shape than config.json demands: [64, 192] instead of [192, 64]",
    ),
    "integers": (_tensors(LM, lambda t: t.update({UP: t[UP].astype(np.int8)})), f"{UP} is stored as I8"),
    "float offsets": (
        _tensors(LM, lambda t: t.update(codebook_layer_offsets=np.arange(8, dtype=np.float32))),
        "codebook_layer_offsets is stored as F32, but I64",
    ),
    "fewer layers": (
        lambda p: (
            _set("config.json", LLM, "num_hidden_layers", value=3)(p),
            _set("config.json", LLM, "layer_types", value=["full_attention"] * 3)(p),
        ),
        "has 11 tensors (first llm.layers.3.",
    ),
    "another model": (_set("config.json", "model_type", value="llama"), "model_type is 'llama', but only 'omnivoice'"),
    "another backbone": (_set("config.json", LLM, "model_type", value="qwen2"), "llm_config.model_type is 'qwen2'"),
    "another codec": (_set(CODEC_CONFIG, "model_type", value="dac"), "model_type is 'dac'"),
    "no llm_config": (_set("config.json", LLM, value=None), "llm_config is missing"),
    "heads": (_set("config.json", LLM, "num_key_value_heads", value=3), "num_attention_heads=4 is not a multiple"),
    "odd head": (_set("config.json", LLM, "head_dim", value=33), "head_dim=33 must be even"),
    "negative": (_set("config.json", LLM, "hidden_size", value=-64), "hidden_size must be a whole number"),
    "text for number": (_set("config.json", LLM, "hidden_size", value="64"), "hidden_size must be a whole number"),
    "layer types": (_set("config.json", LLM, "layer_types", value=["full_attention"]), "layer_types must be"),
    "mask id": (_set("config.json", "audio_mask_id", value=7), "audio_mask_id=7 must be the last"),
    "small vocabulary": (_set("config.json", LLM, "vocab_size", value=300), "vocab_size=300 must be at least"),
    "tokenizer": (_drop_token, r"lacks the special token <|denoise|>"),
    "tokenizer of another": (_write("tokenizer.json", b'{"model": {}}'), "tokenizer.json has no vocabulary"),
    "codebooks": (_set(CODEC_CONFIG, "target_bandwidths", value=[1]), "make 4 codebooks, but num_audio_codebook=8"),
    "codebook size": (_set(CODEC_CONFIG, "codebook_size", value=1000), "codebook_size=1000 must be audio_vocab_size"),
    "rate": (_set(CODEC_CONFIG, "sample_rate", value=16_000), "sample_rate=16000"),
    "hop": (_set(CODEC_CONFIG, ACOUSTIC, "downsampling_ratios", value=[8, 5, 4, 2]), "a hop of 320 samples"),
    "upsampling": (_set(CODEC_CONFIG, ACOUSTIC, "upsampling_ratios", value=[8, 5]), "have different products"),
    "decoder width": (_set(CODEC_CONFIG, ACOUSTIC, "decoder_hidden_size", value=100), "can't be halved 5 times"),
    "semantic heads": (_set(CODEC_CONFIG, SEMANTIC, "num_attention_heads", value=5), "is not a multiple of num_att"),
    "semantic strides": (_set(CODEC_CONFIG, SEMANTIC, "conv_stride", value=[5] * 7), "doesn't multiply to"),
    "preprocessor": (
        _set("audio_tokenizer/preprocessor_config.json", "sampling_rate", value=16_000),
        "sampling_rate is 16000, but the codec's config says 24000",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(copy: Path, fault: str) -> None:
    plant, words = FAULTS[fault]
    checkpoint.validate_checkpoint(copy)
    plant(copy)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.validate_checkpoint(copy)
    message = str(caught.value)
    assert "\n" not in message
    assert str(copy) in message
    position = -1
    for part in words.split(" .*"):
        position = message.find(part, position + 1)
        assert position >= 0, f"{part!r} is not in {message!r}"


def test_not_a_directory(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a directory"):
        checkpoint.validate_checkpoint(tiny / "config.json")
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.validate_checkpoint(tmp_path / "nowhere")


def test_harmless_tensors_are_let_through(copy: Path) -> None:
    """Keys that transformers itself maps or ignores; the older names of weight norm load to the same values."""
    position = "semantic_model.encoder.pos_conv_embed.conv"

    def edit(content: dict[str, Any]) -> None:
        content["semantic_model.masked_spec_embed"] = np.zeros(32, np.float32)
        for half, name in enumerate("gv"):
            content[f"{position}.weight_{name}"] = content.pop(f"{position}.parametrizations.weight.original{half}")

    edit_tensors(copy / CODEC, edit)
    edit_tensors(copy / LM, lambda t: t.update({"llm.layers.0.self_attn.rotary_emb.inv_freq": np.ones(16, np.float32)}))
    checkpoint.validate_checkpoint(copy)

    from omnivoice import OmniVoice
    from transformers import HiggsAudioV2TokenizerModel

    for _, info in (
        OmniVoice.from_pretrained(str(copy), train=True, output_loading_info=True),
        HiggsAudioV2TokenizerModel.from_pretrained(str(copy / "audio_tokenizer"), output_loading_info=True),
    ):
        assert not any(info.values()), info


def test_upstream_alone_would_fill_a_gap_at_random(copy: Path) -> None:
    """Why validation exists: upstream loads what `tensor missing` above refuses."""
    from omnivoice import OmniVoice

    edit_tensors(copy / LM, lambda t: t.pop(UP))
    _, info = OmniVoice.from_pretrained(str(copy), train=True, output_loading_info=True)
    assert info["missing_keys"] == {UP}


@pytest.fixture
def sharded(copy: Path) -> Path:
    """The language model in two files and an index."""
    content = load_file(copy / LM)
    names = sorted(content)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: content[name] for name in part}, copy / file)
        weight_map |= dict.fromkeys(part, file)
    (copy / LM).unlink()
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8"
    )
    return copy


def test_shards(sharded: Path, tiny: Path) -> None:
    checkpoint.validate_checkpoint(sharded)
    assert checkpoint.parameter_bytes(sharded) == checkpoint.parameter_bytes(tiny)
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00002\.safetensors"):
        checkpoint.validate_checkpoint(sharded)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "{"])
def test_a_bad_index(sharded: Path, index: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        checkpoint.validate_checkpoint(sharded)


def test_a_shard_that_lacks_a_tensor(sharded: Path) -> None:
    shards = [sharded / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    holder = next(path for path in shards if UP in load_file(path))
    edit_tensors(holder, lambda t: t.pop(UP))
    with pytest.raises(CheckpointError, match=f"lacks {UP}"):
        checkpoint.validate_checkpoint(sharded)


def test_kind(copy: Path) -> None:
    assert checkpoint.checkpoint_kind(copy) == "random-tiny"
    assert checkpoint.is_random(copy)
    config = load_json(copy / "config.json")
    assert config["omnivoice_triton"] == {"recipe": 1, "seed": 7, "size": "tiny", "weights": "random"}
    edit_json(copy / "config.json", "omnivoice_triton", value={"weights": "trained", "size": "tiny"})
    assert checkpoint.checkpoint_kind(copy) == "trained-tiny"
    assert not checkpoint.is_random(copy)
    del config["omnivoice_triton"]
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert checkpoint.checkpoint_kind(copy) == "real"
    assert not checkpoint.is_random(copy)
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        checkpoint.checkpoint_kind(copy)


@pytest.mark.parametrize("dtype", ["float32", "float16", torch.bfloat16])
def test_parameter_bytes(tiny: Path, upstream: Any, dtype: Any) -> None:
    width = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    lm = sum(
        value.numel() * (width.itemsize if value.is_floating_point() else 8)
        for name, value in upstream.state_dict().items()
        if not name.startswith("audio_tokenizer.")
    )
    codec = sum(value.numel() * 4 for value in upstream.audio_tokenizer.state_dict().values())
    assert checkpoint.parameter_bytes(tiny, dtype) == {"lm": lm, "codec": codec}


def test_parameter_bytes_refuses(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'int8'"):
        checkpoint.parameter_bytes(tiny, "int8")
    with pytest.raises(CheckpointError, match=r"lacks config\.json"):
        checkpoint.parameter_bytes(tmp_path)


def test_a_model_found_sound_is_looked_at_again_once_a_file_changes(copy: Path) -> None:
    """In one process a command line and its runner both ask: the second answer is remembered, a changed file is not."""
    checkpoint.validate_checkpoint(copy)
    checkpoint.validate_checkpoint(copy)
    _drop_token(copy)
    with pytest.raises(CheckpointError, match="denoise"):
        checkpoint.validate_checkpoint(copy)
    with pytest.raises(CheckpointError, match="denoise"):
        checkpoint.validate_checkpoint(copy)


def test_a_sound_model_is_read_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = files.read_json
    monkeypatch.setattr(files, "read_json", lambda path: (read.append(path), real(path))[1])
    checkpoint.validate_checkpoint(copy)
    first = len(read)
    checkpoint.validate_checkpoint(copy)
    assert 0 < first == len(read)
    os.utime(copy / "config.json")
    checkpoint.validate_checkpoint(copy)
    assert len(read) == 2 * first


def test_an_id_that_is_no_number_is_not_counted(copy: Path) -> None:
    path = copy / "tokenizer.json"
    tokenizer = load_json(path)
    tokenizer["added_tokens"].append({"content": "<odd>", "id": "many"})
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    checkpoint.validate_checkpoint(copy)
