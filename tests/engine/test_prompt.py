"""Prompts against upstream's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton.engine.prompt import Prompt, PromptBuilder
from omnivoice_triton.speech import InputError

from .tiny import make_model


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def real_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import lzma

    from transformers import PreTrainedTokenizerFast

    import omnivoice_triton

    packed = Path(omnivoice_triton.__file__).parent / "data" / "tokenizer.json.xz"
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return PreTrainedTokenizerFast(tokenizer_file=str(path))


CASES: list[dict[str, Any]] = [
    {"text": "Hello  there.\nSecond line"},
    {"text": "Hello", "lang": "en", "instruct": "female, british accent"},
    {"text": "a", "ref_text": "words before", "reference": torch.arange(40).view(8, 5) % 32},
    {"text": "b", "ref_text": "c", "reference": torch.zeros(8, 1, dtype=torch.long), "denoise": False},
    {"text": "[laughter] 你好 （世界） [sigh]", "lang": "zh"},
    {"text": ""},
]


@pytest.mark.parametrize("case", CASES)
def test_ids_are_upstreams(model: Any, case: dict[str, Any]) -> None:
    _compare(model, case)


def test_ids_are_upstreams_with_the_real_tokenizer(model: Any, real_tokenizer: Any) -> None:
    before = model.text_tokenizer
    model.text_tokenizer = real_tokenizer
    try:
        for case in CASES:
            _compare(model, case)
    finally:
        model.text_tokenizer = before
    prompt = PromptBuilder(real_tokenizer).build("hello world", 3, lang="English")
    assert prompt.text_ids.tolist() == [
        *(151670, 22574, 151671, 151672, 4064, 151673, 151674),
        *(14990, 1879, 151675),
    ]  # fmt: skip


def _compare(model: Any, case: dict[str, Any]) -> None:
    options = {"denoise": True, **case}
    reference = options.pop("reference", None)
    upstream = model._prepare_inference_inputs(
        num_target_tokens=4, ref_audio_tokens=reference, ref_text=options.pop("ref_text", None), **options
    )
    prompt = PromptBuilder(model.text_tokenizer).build(frames=4, **{**case, "reference": reference})
    ids, audio = upstream["input_ids"][0], upstream["audio_mask"][0]
    n_text = len(prompt.text_ids)
    assert (ids[:, :n_text] == torch.from_numpy(prompt.text_ids)).all()
    assert not audio[:n_text].any()
    assert audio[n_text:].all()
    if reference is not None:
        assert torch.equal(ids[:, n_text : prompt.rows], reference)
    assert (ids[:, prompt.rows :] == model.config.audio_mask_id).all()
    assert ids.shape[1] == prompt.rows + prompt.frames


def test_style_is_tokenized_once(model: Any) -> None:
    calls = []

    def tokenizer(text: str, **options: Any) -> Any:
        calls.append(text)
        return model.text_tokenizer(text, **options)

    builder = PromptBuilder(tokenizer)
    for text in ("one", "two"):
        builder.build(text, 1)
    assert len(calls) == 3


def test_bad_prompts_are_refused() -> None:
    ids = np.zeros(3, np.int64)
    with pytest.raises(InputError, match="frames must be at least 1, not 0"):
        Prompt(ids, None, 0)
    with pytest.raises(InputError, match=r"reference must be whole numbers \[C, F\]"):
        Prompt(ids, torch.zeros(8, 2), 1)
    with pytest.raises(InputError, match="text_ids must be int64"):
        Prompt(ids.astype(np.int32), None, 1)
