"""Stage "judge": the recogniser learns to read espeak-ng's recordings, clean and disturbed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tools.demo_voice.corpus import FRAME, Corpus
from tools.demo_voice.judge import symbols_of
from tools.demo_voice.stages import generator, learning_rate, step_seed

from omnivoice_triton.verify import judge as judges


@dataclass(frozen=True)
class JudgeRecipe:
    """How the judge is trained."""

    batch: int = 192
    width: int = 192
    peak_rate: float = 2e-3
    disturbed: float = 0.8
    """Share of the batches with noise, filters, blur and masks: the judge should forgive a bad loudspeaker."""


class JudgeStage:
    """Trains a judge on a corpus's training clips."""

    name = "judge"

    def __init__(self, corpus: Corpus, recipe: JudgeRecipe, seed: int) -> None:
        self.corpus, self.recipe, self.seed = corpus, recipe, seed
        self.device = corpus.audio.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.judge = judges.Judge(symbols_of([clip.text for clip in corpus.clips]), recipe.width)
        self.judge.to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.judge.parameters(), lr=recipe.peak_rate, weight_decay=1e-2, fused=self.device.type == "cuda"
        )
        ids = {symbol: number for number, symbol in enumerate(self.judge.symbols, 1)}
        members = corpus.indices(held_out=False)
        self._frames = np.array([corpus.clips[i].frames for i in members])
        order = np.argsort(self._frames, kind="stable")
        self._members, self._frames = members[order], self._frames[order]
        self._targets = [[ids[s] for s in judges.spell(corpus.clips[i].text)] for i in self._members]

    def step(self, number: int, progress: float) -> dict[str, torch.Tensor]:
        """One optimizer step on clips of like length."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.peak_rate * learning_rate(progress, number)
        rng = np.random.default_rng(step_seed(self.seed, self.name, number))
        size = min(self.recipe.batch, len(self._members))
        first = int(rng.integers(len(self._members) - size + 1))
        rows = np.arange(first, first + size)
        frames = self._frames[rows]
        longest = int(frames.max())
        start = torch.from_numpy(self.corpus.starts[self._members[rows]] * FRAME).to(self.device, non_blocking=True)
        at = torch.arange(longest * FRAME, device=self.device)
        lengths = torch.from_numpy(frames * FRAME).to(self.device, non_blocking=True)
        wave = self.corpus.audio[(start[:, None] + at).clamp_(max=self.corpus.audio.numel() - 1)].float() / 32768
        wave = wave * (at < lengths[:, None])
        noise = generator(self.device, step_seed(self.seed, "judge noise", number))
        disturbed = rng.random() < self.recipe.disturbed
        if disturbed:
            wave = _noisy(wave, noise)
        mel = self.judge.features(wave)
        if disturbed:
            mel = _disturb(mel, noise, rng)
        outputs = self.judge(mel)
        # Four outputs of 10 ms x 2 to one 40 ms frame, less what stretching took.
        counts = (outputs.shape[1] * frames / longest).astype(np.int64).clip(1, outputs.shape[1])
        targets = [self._targets[row] for row in rows]
        flat = torch.tensor([symbol for target in targets for symbol in target], dtype=torch.int64)
        loss = F.ctc_loss(
            outputs.transpose(0, 1),
            flat.to(self.device, non_blocking=True),
            torch.from_numpy(counts),
            torch.tensor([len(target) for target in targets]),
            zero_infinity=True,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.judge.parameters(), 1.0)
        self.optimizer.step()
        return {"ctc": loss}

    def state(self) -> dict[str, Any]:
        """Weights and optimizer."""
        return {"judge": self.judge.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.judge.load_state_dict(state["judge"])
        self.optimizer.load_state_dict(state["optimizer"])


def _noisy(wave: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """White noise 8 to 45 dB below the speech."""
    size = (len(wave), 1)
    decibels = 8 + 37 * torch.rand(size, generator=noise, device=wave.device)
    level = wave.pow(2).mean(1, keepdim=True).sqrt() * 10 ** (-decibels / 20)
    return wave + level * torch.randn(wave.shape, generator=noise, device=wave.device)


def _disturb(mel: torch.Tensor, noise: torch.Generator, rng: np.random.Generator) -> torch.Tensor:
    """Filters, blur, rough cells, stretched time and masked bands or moments, on log-mel features (B, 80, frames)."""
    size, bands, frames = mel.shape
    device = mel.device

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise, device=device)

    filters = F.interpolate(normal(size, 1, 6), bands, mode="linear", align_corners=True).transpose(1, 2)
    mel = mel + 0.5 * float(rng.random()) * filters
    mel = mel + 0.4 * float(rng.random()) * normal(size, bands, frames)
    if rng.random() < 0.3:  # Harmonics run together, as in a cheap codec
        mel = F.avg_pool1d(mel.transpose(1, 2), 3, 1, 1, count_include_pad=False).transpose(1, 2)
    if rng.random() < 0.3:
        mel = F.avg_pool1d(mel, 3, 1, 1, count_include_pad=False)
    if rng.random() < 0.5:
        mel = F.interpolate(mel, int(frames * rng.uniform(0.92, 1.1)), mode="linear", align_corners=False)
    floor = mel.mean((1, 2), keepdim=True)
    for axis, most in ((1, 12), (2, 12)):
        width = torch.randint(most, (size, 1), generator=noise, device=device)
        place = torch.arange(mel.shape[axis], device=device)
        first = (torch.rand((size, 1), generator=noise, device=device) * mel.shape[axis]).long()
        hidden = (place >= first) & (place < first + width)
        mel = torch.where(hidden[:, :, None] if axis == 1 else hidden[:, None], floor, mel)
    return mel
