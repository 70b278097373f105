"""The recogniser through transformers, on a Whisper of random weights that fits into a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton.speech import InputError
from omnivoice_triton.verify import recognise
from omnivoice_triton.verify.recognise import WHISPER, Whisper, character_error_rate, load_recogniser

SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|ko|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    path = tmp_path_factory.mktemp("whisper")
    ids = {symbol: number for number, symbol in enumerate((*sorted(ByteLevel.alphabet()), *SPECIAL))}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    names = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
    tokenizer = WhisperTokenizer(vocab=ids, merges=[], additional_special_tokens=list(SPECIAL[1:]), **names)
    sizes = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_model"), 16)
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    sizes |= dict.fromkeys(("encoder_layers", "decoder_layers"), 1)
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(ids), decoder_start_token_id=start, eos_token_id=end, bos_token_id=end, pad_token_id=end,
            suppress_tokens=None, begin_suppress_tokens=None, max_target_positions=448, **sizes,
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start, eos_token_id=end, pad_token_id=end, max_length=20, is_multilingual=True,
        lang_to_id={name: ids[name] for name in ("<|en|>", "<|ko|>")},
        task_to_id={name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
    )  # fmt: skip
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(path)
    assert json.loads((path / "config.json").read_text())["model_type"] == "whisper"
    return path


def test_it_listens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = load_recogniser(f"whisper:{folder}", "cpu")
    assert isinstance(recogniser, Whisper)
    real, seen = recogniser._pipeline, []

    def remember(sound: dict[str, Any], **keywords: Any) -> Any:
        seen.append((len(sound["raw"]), sound["sampling_rate"], keywords["generate_kwargs"]["language"]))
        return real(sound, **keywords)

    monkeypatch.setattr(recogniser, "_pipeline", remember)
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    said = [recogniser.transcribe(noise, 24_000, code) for code in ("en", "ko")]
    assert seen == [(16_000, 16_000, "en"), (16_000, 16_000, "ko")]
    assert all(isinstance(text, str) for text in said)
    assert character_error_rate(said[0], "hello") > 0.5  # random weights hear nothing
    with pytest.raises(ValueError, match=r"[Uu]nsupported language|not supported|should be one of"):
        recogniser.transcribe(noise, 24_000, "xx")


def test_of_auto_real_weights_are_heard_and_others_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []

    def whisper(model: str = WHISPER, device: str = "cpu") -> str:
        if made:
            raise InputError(f"recogniser {model!r} can't be loaded: no network")
        made.append(f"{model} on {device}")
        return made[0]

    monkeypatch.setattr(recognise, "Whisper", whisper)
    for spec, kind in (("auto", "random-full"), ("none", "real")):
        assert recognise.recogniser_for(spec, "cpu", kind) is None
    assert not made
    assert recognise.recogniser_for("auto", "cpu", "real") == f"{WHISPER} on cpu"
    assert recognise.recogniser_for("auto", "cpu", "real") is None
    assert capsys.readouterr().err == (
        f"no character error rate: recogniser {WHISPER!r} can't be loaded: no network; "
        "--recogniser whisper:DIR names a local one\n"
    )
    with pytest.raises(InputError, match="no network"):  # asked for by name: no silent way round
        recognise.recogniser_for("whisper", "cpu", "real")
