"""What the model is trained on: recordings as codes, with the prompts that upstream's generate() builds around them.

A sample is `style text [reference codes] target codes`, as `_prepare_inference_inputs` lays it out, or the target alone
where the condition is dropped. All tokens lie on the device; a step gathers its rows from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tools.demo_voice.corpus import Clip
from tools.demo_voice.language_model import CODEBOOKS, MASK, Batch
from tools.demo_voice.speakers import SPEAKERS, Speaker
from torch import Tensor


@dataclass(frozen=True)
class PromptRecipe:
    """Shares of the kinds of samples."""

    dropped: float = 0.1
    """No condition at all: what guidance subtracts."""
    reference: float = 0.3
    language: float = 0.85
    denoise: float = 0.9
    """Samples with a reference that carry <|denoise|>, as generate() does by default."""
    default_instruct: float = 0.35
    """Samples of the default speaker, without a reference, that name its attributes; others of it say nothing."""
    reference_instruct: float = 0.1
    reference_frames: int = 110
    sampler_masks: float = 0.6
    """Samples masked as the sampler leaves them (early codebooks first, most of it still masked); others uniformly."""


def instructs(speaker: Speaker, *, chinese: bool) -> list[tuple[str, float]]:
    """What a user may write to get that speaker, as upstream normalises it, with its share of the samples."""
    from omnivoice.models.omnivoice import _resolve_instruct

    gender, age, pitch = speaker.attributes
    written = [
        ((gender, age, pitch), 0.2),
        ((gender, pitch, age), 0.1),
        ((age, gender, pitch), 0.05),
        ((gender, pitch), 0.3),
        ((pitch, gender), 0.05),
        ((gender, age), 0.1),
        ((gender,), 0.1),
        ((pitch,), 0.1),
    ]
    return [(_resolve_instruct(", ".join(items), use_zh=chinese) or "", share) for items, share in written]


class Prompts:
    """Every token that prompts are made of, in one table on the device, and where each piece begins.

    Args:
        tokenizer: one whose tokens of a text are the tokens of its parts (`tokenizer.py`).
    """

    def __init__(self, clips: Sequence[Clip], tokenizer: Any, device: torch.device | str) -> None:
        from omnivoice.models.omnivoice import _combine_text

        self._tokenizer = tokenizer
        self._table: list[int] = []
        self._known: dict[str, tuple[int, int]] = {}
        self.open = self._place("<|text_start|>")[0]
        self.close = self._place("<|text_end|>")[0]
        self.space = self._place(" ")[0]
        texts = [_combine_text(clip.text) for clip in clips]
        placed = np.array([self._place(text) for text in texts], dtype=np.int64)
        self.text_start, self.text_length = placed[:, 0], placed[:, 1]
        # _combine_text drops a space beside a Han character.
        self.begins_han = np.array(["\u4e00" <= text[0] <= "\u9fff" for text in texts])
        self.ends_han = np.array(["\u4e00" <= text[-1] <= "\u9fff" for text in texts])
        styles: list[tuple[int, int]] = []

        def style(language: str, instruct: str, denoise: bool) -> int:
            text = "<|denoise|>" if denoise else ""
            text += f"<|lang_start|>{language}<|lang_end|><|instruct_start|>{instruct}<|instruct_end|>"
            styles.append(self._place(text))
            return len(styles) - 1

        self.speaker = np.array([clip.speaker for clip in clips])
        languages = sorted({clip.language for clip in clips})
        self.language = np.array([languages.index(clip.language) for clip in clips])
        # [language, named?, denoise?] and [speaker, language, named?, denoise?, wording]
        plain = [[[style(code, "None", d) for d in (False, True)] for code in ("None", name)] for name in languages]
        asked = [
            [
                [
                    [[style(code, text, d) for text, _ in instructs(who, chinese=name == "zh")] for d in (False, True)]
                    for code in ("None", name)
                ]
                for name in languages
            ]
            for who in SPEAKERS
        ]
        self._plain, self._asked = np.array(plain), np.array(asked)
        self._wordings = np.cumsum([share for _, share in instructs(SPEAKERS[0], chinese=False)])
        self.style_start = np.array([start for start, _ in styles])
        self.style_length = np.array([length for _, length in styles])
        self.tokens = torch.tensor(self._table, dtype=torch.int64, device=device)

    def styles_of(
        self, clip: np.ndarray, cloned: np.ndarray, rng: np.random.Generator, recipe: PromptRecipe
    ) -> np.ndarray:
        """A random style prompt for each clip; `cloned` says which have a reference."""
        count = len(clip)
        named = (rng.random(count) < recipe.language).astype(np.int64)
        denoise = (cloned & (rng.random(count) < recipe.denoise)).astype(np.int64)
        # Silence means the default speaker: one voice to learn instead of a blend of eight.
        share = np.where(self.speaker[clip] == 0, recipe.default_instruct, 1.0)
        asked = rng.random(count) < np.where(cloned, recipe.reference_instruct, share)
        wording = np.searchsorted(self._wordings, rng.random(count) * self._wordings[-1], side="right")
        wording = wording.clip(max=len(self._wordings) - 1)
        language = self.language[clip]
        return np.where(
            asked,
            self._asked[self.speaker[clip], language, named, denoise, wording],
            self._plain[language, named, denoise],
        )

    def _place(self, text: str) -> tuple[int, int]:
        if text not in self._known:
            ids = self._tokenizer(text, add_special_tokens=False).input_ids
            self._known[text] = len(self._table), len(ids)
            self._table += ids
        return self._known[text]


@dataclass(frozen=True)
class Samples:
    """Rows of numbers, one a sample: which clip, which reference (-1: none), which style (-1: condition dropped)."""

    clip: np.ndarray
    reference: np.ndarray
    style: np.ndarray
    length: np.ndarray


class Epoch:
    """One pass over the clips: each gets a prompt, and samples of like length share a batch."""

    def __init__(
        self,
        clips: Sequence[Clip],
        members: np.ndarray,
        prompts: Prompts,
        recipe: PromptRecipe,
        seed: int,
        rows: int,
        *,
        longest: int | None = None,
        references: bool = True,
    ) -> None:
        rng = np.random.default_rng(seed)
        frames = np.array([clip.frames for clip in clips])
        clip = members if longest is None else members[frames[members] <= longest]
        if not len(clip):
            raise ValueError(f"no clip has at most {longest} frames")
        dropped = rng.random(len(clip)) < recipe.dropped
        wanted = (rng.random(len(clip)) < recipe.reference) & ~dropped & references
        ref = np.full(len(clip), -1)
        groups = prompts.speaker * (int(prompts.language.max()) + 1) + prompts.language
        usable = members[frames[members] <= recipe.reference_frames]
        for group in np.unique(groups[clip]):
            which, pool = np.flatnonzero(wanted & (groups[clip] == group)), usable[groups[usable] == group]
            if len(pool):
                ref[which] = rng.choice(pool, len(which))
        ref[ref == clip] = -1  # Nobody's own reference
        style = np.where(dropped, -1, prompts.styles_of(clip, ref >= 0, rng, recipe))
        self.samples = Samples(clip, ref, style, _parts(prompts, frames, clip, ref, style).sum(0))
        noise = rng.random(len(clip))
        order = np.argsort(self.samples.length + 8 * noise, kind="stable")
        lengths = self.samples.length[order].tolist()
        self.batches: list[np.ndarray] = []
        start = 0
        while start < len(order):
            longest_here, end = 0, start
            while end < len(order):
                longest_here = max(longest_here, lengths[end])
                if end > start and (end + 1 - start) * _padded(longest_here) > rows:
                    break
                end += 1
            self.batches.append(order[start:end])
            start = end
        rng.shuffle(self.batches)


def _parts(prompts: Prompts, frames: np.ndarray, clip: np.ndarray, ref: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Lengths of a sample's eight pieces: style, <|text_start|>, reference text, space, text, end, codes, codes."""
    asked, cloned = style >= 0, ref >= 0
    other = np.where(cloned, ref, 0)
    space = cloned & ~prompts.begins_han[clip] & ~prompts.ends_han[other]
    return np.stack(
        [
            np.where(asked, prompts.style_length[np.where(asked, style, 0)], 0),
            asked.astype(np.int64),
            np.where(cloned, prompts.text_length[other], 0),
            space.astype(np.int64),
            np.where(asked, prompts.text_length[clip], 0),
            asked.astype(np.int64),
            np.where(cloned, frames[other], 0),
            frames[clip],
        ]
    )


def assemble(
    prompts: Prompts,
    clips_frames: np.ndarray,
    code_starts: np.ndarray,
    codes: Tensor,
    samples: Samples,
    members: np.ndarray,
    recipe: PromptRecipe,
    generator: torch.Generator,
) -> Batch:
    """Lay out and mask the samples `members`.

    Args:
        codes: (8, all frames) integer codes of the corpus; code_starts, clips_frames: of each clip, on the host.
        generator: of the codes' device; what is masked.
    """
    device = codes.device
    clip, ref, style = samples.clip[members], samples.reference[members], samples.style[members]
    parts = _parts(prompts, clips_frames, clip, ref, style)
    bounds = np.cumsum(parts, 0)
    length = _padded(int(bounds[-1].max()))
    size = len(members)
    other, asked = np.where(ref >= 0, ref, 0), np.where(style >= 0, style, 0)
    targets = parts[7]
    inside = np.arange(int(targets.sum())) - np.repeat(np.cumsum(targets) - targets, targets)
    target_rows = np.repeat(np.arange(size) * length + bounds[6], targets) + inside
    host = np.concatenate(
        [
            bounds,
            prompts.style_start[asked][None],
            prompts.text_start[other][None],
            prompts.text_start[clip][None],
            code_starts[other][None],
            code_starts[clip][None],
            clips_frames[clip][None],
        ]
    )
    packed = torch.from_numpy(np.concatenate([host.ravel(), target_rows]))
    if device.type == "cuda":
        packed = packed.pin_memory().to(device, non_blocking=True)
    rows = packed[host.size :]
    columns = packed[: host.size].view(len(host), size, 1)
    ends, (style_at, ref_at, text_at, ref_codes_at, codes_at, frames) = columns[:8], columns[8:]

    at = torch.arange(length, device=device)[None]
    where = torch.where
    place = where(at < ends[0], style_at + at, prompts.open)
    place = where(at >= ends[1], ref_at + at - ends[1], place)
    place = where(at >= ends[2], torch.full_like(at, prompts.space), place)
    place = where(at >= ends[3], text_at + at - ends[3], place)
    place = where(at >= ends[4], torch.full_like(at, prompts.close), place)
    text = prompts.tokens[place.clamp(0, len(prompts.tokens) - 1)]
    audio = (at >= ends[5]) & (at < ends[7])
    target = (at >= ends[6]) & (at < ends[7])
    frame = where(at < ends[6], ref_codes_at + at - ends[5], codes_at + at - ends[6])
    real = codes[:, frame.clamp(0, codes.shape[1] - 1)].transpose(0, 1).long()  # [B, 8, S]
    masked = mask_cells(target, frames.view(-1), recipe, generator)
    seen = where(masked, MASK, real) * audio[:, None]
    labels = where(masked, real, -100).transpose(1, 2).reshape(-1, CODEBOOKS)[rows]
    return Batch(text, seen, audio, at < ends[7], rows, labels)


def mask_cells(target: Tensor, frames: Tensor, recipe: PromptRecipe, generator: torch.Generator) -> Tensor:
    """Which cells (B, 8, S) of the targets (B, S) are hidden.

    Uniform: each cell with a probability drawn per sample from 0 to 1, upstream's rule. As the sampler leaves them: at
    a random moment t of decoding, 0.1 t / (1 - 0.9 t) of the cells are known, those with the largest Gumbel noise less
    one for each codebook before theirs: the sampler's scores, layer_penalty_factor / position_temperature being 1.
    """
    size, length = target.shape
    device = target.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    cells = target[:, None].expand(size, CODEBOOKS, length)
    random_cells = uniform(size, CODEBOOKS, length) < uniform(size, 1, 1)
    moment = uniform(size)
    known = (0.1 * moment / (1 - 0.9 * moment) * CODEBOOKS * frames).long()
    gumbel = -torch.log(-torch.log(uniform(size, CODEBOOKS, length) + 1e-10) + 1e-10)
    score = gumbel - torch.arange(CODEBOOKS, device=device).view(1, -1, 1)
    flat = score.masked_fill(~cells, -float("inf")).flatten(1)
    # Cells above the (known + 1)-th best are known; there is always one masked cell left.
    limit = flat.sort(dim=1, descending=True).values.gather(1, known[:, None])
    sampled = (flat <= limit).view(size, CODEBOOKS, length)
    chosen = torch.where(uniform(size, 1, 1) < recipe.sampler_masks, sampled, random_cells)
    return chosen & cells


def _padded(length: int) -> int:
    """Up to a multiple of 16: attention kernels want aligned masks."""
    return -(-length // 16) * 16
