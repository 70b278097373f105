"""Stage "codec": the codec learns to give the recordings back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tools.demo_voice import codec as codecs
from tools.demo_voice.corpus import FRAME, Corpus
from tools.demo_voice.stages import generator, learning_rate, step_seed


@dataclass(frozen=True)
class CodecRecipe:
    """How the codec is trained."""

    batch: int = 48
    frames: int = 24
    """Length of a training segment: 0.96 s."""
    peak_rate: float = 1e-3
    commitment: float = 0.25
    mel: float = 2.0
    scale: float = 0.05
    """Weight of the squared logarithm of the embeddings' variance."""
    residual: float = 0.5
    """Weight of what the codebooks leave of the embeddings; teaches the quantizer alone."""
    consistency: float = 0.2
    """Weight of the distance between the embeddings of a sound and of the same with its phase turned."""
    plain: float = 0.08
    """Until this progress there is no quantizer: first sounds, then codes for them. An encoder that has learnt nothing
    yet would satisfy quantizer and consistency by saying nothing."""
    mixed: float = 0.2
    """From then until this progress a shrinking part of the segments still skips the quantizer."""
    whole: float = 0.5
    """Share of segments with all codebooks; the others use the first 1 to 8, so that these say the most."""


class CodecStage:
    """Trains a codec on random segments of a corpus."""

    name = "codec"

    def __init__(self, corpus: Corpus, shape: codecs.CodecShape, recipe: CodecRecipe, seed: int) -> None:
        self.corpus, self.recipe, self.seed = corpus, recipe, seed
        self.device = corpus.audio.device
        self.codec: Any = codecs.new_codec(shape, seed).to(self.device).train()
        self.quantizer = codecs.Quantizer(self.codec)
        self.loss = codecs.SpectralLoss().to(self.device)
        self.parameters = [p for p in self.codec.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.peak_rate, betas=(0.8, 0.99), weight_decay=1e-3, fused=self.device.type == "cuda"
        )
        train = corpus.indices(held_out=False)
        lengths = np.array([corpus.clips[i].frames for i in train])
        keep = lengths > recipe.frames + 1
        self._starts, self._lengths = corpus.starts[train][keep], lengths[keep]
        if not len(self._starts):
            raise ValueError(f"no clip is longer than a segment of {recipe.frames} frames")

    def segments(self, step: int) -> torch.Tensor:
        """The step's random segments, (batch, samples) float32; any sample may be the first."""
        rng = np.random.default_rng(step_seed(self.seed, self.name, step))
        rows = rng.integers(len(self._starts), size=self.recipe.batch)
        samples = self.recipe.frames * FRAME
        room = self._lengths[rows] * FRAME - samples
        first = self._starts[rows] * FRAME + (rng.random(self.recipe.batch) * room).astype(np.int64)
        index = torch.from_numpy(first).to(self.device, non_blocking=True)[:, None]
        index = index + torch.arange(samples, device=self.device)
        return self.corpus.audio[index].float() / 32768

    def step(self, number: int, progress: float) -> dict[str, torch.Tensor]:
        """One optimizer step."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.peak_rate * learning_rate(progress, number)
        noise = generator(self.device, step_seed(self.seed, "codec noise", number))
        wave = self.segments(number)
        batch = len(wave)

        def uniform(count: int) -> torch.Tensor:
            return torch.rand(count, generator=noise, device=self.device)

        # Recordings come at any loudness once users bring their own.
        wave = wave * (0.5 + uniform(batch))[:, None]
        half = batch // 2
        turned = codecs.rotate_phase(wave[:half], 2 * torch.pi * uniform(half))
        embeddings = codecs.embed(self.codec, torch.cat([wave, turned]))
        embeddings, other = embeddings[:batch], embeddings[batch:]
        spread_now = embeddings.var((0, 1)).mean() + 1e-4
        spread = spread_now.detach()
        consistency = (other - embeddings[:half]).pow(2).mean() / spread

        active = 1 + (uniform(batch) * codecs.CODEBOOKS).floor()
        active = torch.where(uniform(batch) < recipe.whole, torch.full_like(active, codecs.CODEBOOKS), active)
        commitment = left = consistency.new_zeros(())
        quantized = embeddings
        if progress >= recipe.plain:
            quantized, commitment = self.quantizer(embeddings, active, noise)
            # Relative to the embeddings' spread: else a smaller spread would be the way to please both.
            commitment = commitment / spread
            whole = (active == codecs.CODEBOOKS)[:, None, None]
            left = ((quantized - embeddings.detach()).pow(2) * whole).mean() / (whole.float().mean() + 1e-6) / spread
            share = 0.8 * max(0.0, (recipe.mixed - progress) / (recipe.mixed - recipe.plain))
            quantized = torch.where((uniform(batch) < share)[:, None, None], embeddings, quantized)
        spectral, mel = self.loss(codecs.decode(self.codec, quantized), wave)
        # Nothing else says how large embeddings are; a steady scale is one that the codebooks can follow.
        loss = spectral + recipe.mel * mel + recipe.scale * spread_now.log().pow(2)
        if progress >= recipe.plain:
            loss = loss + recipe.commitment * commitment + recipe.residual * left + recipe.consistency * consistency
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.codec.fc.weight.grad[:, self.codec.acoustic_encoder.conv2.out_channels :] = 0
        self.optimizer.step()
        return {
            "spectral": spectral,
            "mel": mel,
            "commitment": commitment,
            "left": left,
            "turned": consistency,
            "spread": spread,
        }

    def state(self) -> dict[str, Any]:
        """Weights, codebooks and optimizer."""
        return {"codec": self.codec.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.codec.load_state_dict(state["codec"])
        self.optimizer.load_state_dict(state["optimizer"])


@torch.no_grad()
def encode_corpus(codec: Any, corpus: Corpus, rows: int = 256) -> torch.Tensor:
    """Codes of every clip, one after the other: (8, frames) int16 on the corpus's device.

    Clips of one length are encoded together and without padding, so that each gets the codes it gets alone.
    """
    codec.eval()
    lengths = np.array([clip.frames for clip in corpus.clips])
    codes = torch.empty(codecs.CODEBOOKS, int(lengths.sum()), dtype=torch.int16, device=corpus.audio.device)
    for frames in np.unique(lengths):
        members = np.flatnonzero(lengths == frames)
        for chunk in np.array_split(members, -(-len(members) // rows)):
            starts = torch.from_numpy(corpus.starts[chunk]).to(corpus.audio.device)
            at = starts[:, None] * FRAME + torch.arange(int(frames) * FRAME, device=corpus.audio.device)
            found = codecs.encode(codec, corpus.audio[at].float() / 32768)
            into = starts[:, None] + torch.arange(int(frames), device=corpus.audio.device)
            codes[:, into.flatten()] = found.transpose(0, 1).flatten(1).to(torch.int16)
    return codes
