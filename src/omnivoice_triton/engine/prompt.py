"""From a text and a voice to the rows that the backbone sees: token ids, reference codes, and a number of frames.

Order and wording of the special tokens are upstream's (`_prepare_inference_inputs`, OmniVoice 0.2.1):
[<|denoise|> only with a reference] <|lang_start|>…<|lang_end|> <|instruct_start|>…<|instruct_end|>
<|text_start|>reference text and text<|text_end|>, then the reference's frames, then the frames to decode.
Upstream builds 8 equal rows of text ids and moves them to the device in pieces; only one row is ever looked up, so here
it stays on the host until the request joins a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from omnivoice_triton.speech import InputError

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True, eq=False)
class Prompt:
    """What one request conditions on."""

    text_ids: npt.NDArray[np.int64]
    """[N]: style and text tokens, in order."""
    reference: torch.Tensor | None
    """[C, F] codes of the reference voice, on any device, or None."""
    frames: int
    """Frames to decode, at least 1."""

    def __post_init__(self) -> None:
        """Raise InputError for what can't be decoded."""
        frames: object = self.frames
        if isinstance(frames, bool) or not isinstance(frames, Integral):
            raise InputError(f"frames must be a whole number, not {self.frames!r}: round seconds * frame rate")
        if self.frames < 1:
            raise InputError(f"frames must be at least 1, not {self.frames}")
        if self.text_ids.ndim != 1 or self.text_ids.dtype != np.int64:
            raise InputError(f"text_ids must be int64 [N], not {self.text_ids.dtype} {self.text_ids.shape}")
        if self.reference is not None and (self.reference.dim() != 2 or self.reference.dtype not in _WHOLE):
            raise InputError(
                f"reference must be whole numbers [C, F], not {self.reference.dtype} {tuple(self.reference.shape)}"
            )

    @property
    def rows(self) -> int:
        """Rows before the frames to decode."""
        return len(self.text_ids) + (0 if self.reference is None else self.reference.shape[1])


class PromptBuilder:
    """Builds prompts with an upstream model's tokenizer; the style part, which few requests vary, is cached.

    Args:
        tokenizer: upstream's `model.text_tokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # fast tokenizers refuse a second thread while the first is in them
        self._style_ids: Callable[[str], tuple[int, ...]] = lru_cache(maxsize=256)(self._tokenize_style)

    def build(
        self,
        text: str,
        frames: int,
        *,
        ref_text: str | None = None,
        reference: torch.Tensor | None = None,
        lang: str | None = None,
        instruct: str | None = None,
        denoise: bool = True,
    ) -> Prompt:
        """The prompt for `text`, `frames` long; `reference` [C, F] and `ref_text` make it speak in that voice."""
        from omnivoice.models.omnivoice import _combine_text, _tokenize_with_nonverbal_tags

        style = "<|denoise|>" if denoise and reference is not None else ""
        style += f"<|lang_start|>{lang or 'None'}<|lang_end|><|instruct_start|>{instruct or 'None'}<|instruct_end|>"
        spoken = f"<|text_start|>{_combine_text(ref_text=ref_text, text=text)}<|text_end|>"
        with self._lock:
            text_ids = _tokenize_with_nonverbal_tags(spoken, self._tokenizer)[0].tolist()
            style_ids = self._style_ids(style)
        return Prompt(np.array([*style_ids, *text_ids], np.int64), reference, frames)

    def from_task(self, task: Any, index: int, denoise: bool) -> Prompt:
        """The prompt of one item of an upstream GenerationTask."""
        return self.build(
            task.texts[index],
            task.target_lens[index],
            ref_text=task.ref_texts[index],
            reference=task.ref_audio_tokens[index],
            lang=task.langs[index],
            instruct=task.instructs[index],
            denoise=denoise,
        )

    def _tokenize_style(self, style: str) -> tuple[int, ...]:
        ids = self._tokenizer(style, return_tensors="pt").input_ids  # the call upstream makes
        return tuple(ids[0].tolist())
