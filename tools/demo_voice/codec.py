"""The demo voice's codec: a small HiggsAudioV2TokenizerModel, its training forward and its losses.

Same classes, names and decode graph as the real one: 24 kHz, 25 frames a second, 8 codebooks of 1024. Smaller in
width, and with four stages in place of five, so that the last still has 16 channels. The HuBERT branch is the smallest
that the class builds; its columns of `fc` are zero, so codes depend on the acoustic encoder alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnivoice_triton.verify.judge import mel_filters

CODEBOOKS = 8
CODEBOOK_SIZE = 1024
SEMANTIC_WIDTH = 8


@dataclass(frozen=True)
class CodecShape:
    """Widths of the codec; the strides multiply to 960 samples, and codebook_dim is at most latent."""

    decoder_width: int = 256
    encoder_width: int = 12
    latent: int = 40
    codebook_dim: int = 40
    """As many as `latent`: every codebook sees all that those before it left."""
    strides: tuple[int, ...] = (8, 5, 4, 6)


def codec_config(shape: CodecShape) -> Any:
    """The transformers configuration of that shape."""
    from transformers import HiggsAudioV2TokenizerConfig

    up = list(shape.strides)
    return HiggsAudioV2TokenizerConfig(
        acoustic_model_config={
            "model_type": "dac",
            "codebook_dim": 8,
            "codebook_size": CODEBOOK_SIZE,
            "decoder_hidden_size": shape.decoder_width,
            "downsampling_ratios": up[::-1],
            "encoder_hidden_size": shape.encoder_width,
            "hidden_size": shape.latent,
            "hop_length": 960,
            "n_codebooks": 9,
            "sampling_rate": 24_000,
            "upsampling_ratios": up,
        },
        semantic_model_config={
            "model_type": "hubert",
            "conv_dim": [8] * 7,
            "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
            "conv_stride": [5, 2, 2, 2, 2, 2, 2],
            "feat_extract_norm": "group",
            "feat_proj_layer_norm": True,
            "hidden_size": SEMANTIC_WIDTH,
            "intermediate_size": 8,
            "mask_time_prob": 0.0,
            "num_attention_heads": 1,
            "num_conv_pos_embedding_groups": 4,
            "num_conv_pos_embeddings": 2,
            "num_feat_extract_layers": 7,
            "num_hidden_layers": 1,
        },
        codebook_dim=shape.codebook_dim,
        codebook_size=CODEBOOK_SIZE,
        downsample_factor=320,
        sample_rate=24_000,
        semantic_sample_rate=16_000,
        target_bandwidths=[0.5, 1, 1.5, 2],
    )


def new_codec(shape: CodecShape, seed: int) -> Any:
    """An untrained codec, initialised for training: the class's own start (std 0.02) lets narrow layers fade out."""
    from transformers import HiggsAudioV2TokenizerModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = HiggsAudioV2TokenizerModel(codec_config(shape))
        for name, module in codec.named_modules():
            if not name.startswith(("acoustic_", "fc", "quantizer")):
                continue
            if isinstance(module, nn.Conv1d):
                gain = 0.4 if ".res_unit" in name and name.endswith("conv2") else 1.0
                nn.init.normal_(module.weight, std=gain * (module.in_channels * module.kernel_size[0]) ** -0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.ConvTranspose1d):
                nn.init.normal_(module.weight, std=(2 * module.in_channels) ** -0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        # A codebook's projections begin as each other's transpose, within what the encoder can say: then each takes
        # something away from the residual. Independent ones would add noise, eight times over.
        frame = torch.linalg.qr(torch.randn(codec.config.hidden_size, shape.latent)).Q
        with torch.no_grad():
            codec.acoustic_decoder.conv2.weight.mul_(0.1)
            codec.fc.weight.zero_()
            codec.fc.weight[:, : shape.latent] = frame
            codec.fc2.weight.copy_(frame.T)
            for layer in codec.quantizer.quantizers:
                chosen = frame[:, torch.randperm(shape.latent)[: shape.codebook_dim]]
                layer.project_in.weight.copy_(chosen.T)
                layer.project_out.weight.copy_(chosen)
    for part in (codec.semantic_model, codec.encoder_semantic, codec.decoder_semantic, codec.fc1):
        part.requires_grad_(False)
    return codec


def embed(codec: Any, wave: Tensor) -> Tensor:
    """Audio (B, samples) to embeddings before the quantizer (B, frames, width), without the semantic branch."""
    acoustic = codec.acoustic_encoder(wave.unsqueeze(1)).transpose(1, 2)
    # The semantic columns are zero, and stay so: the branch is not even run.
    return F.linear(acoustic, codec.fc.weight[:, : acoustic.shape[-1]], codec.fc.bias)


def encode(codec: Any, wave: Tensor) -> Tensor:
    """Audio (B, samples) to codes (B, 8, frames), as `codec.encode` gives them."""
    return codec.quantizer.encode(embed(codec, wave).transpose(1, 2)).transpose(0, 1)


def decode(codec: Any, quantized: Tensor) -> Tensor:
    """Quantized embeddings (B, frames, width) to audio (B, samples)."""
    return codec.acoustic_decoder(codec.fc2(quantized).transpose(1, 2)).squeeze(1)


class Quantizer:
    """Trains the codebooks of a codec: straight-through gradients, moving averages, dead codes revived.

    Codes whose average use a step falls below `dead` are replaced by vectors of the current batch.
    """

    def __init__(self, codec: Any, decay: float = 0.98, dead: float = 0.02) -> None:
        self.layers = codec.quantizer.quantizers
        self.decay, self.dead = decay, dead
        self._begun = False

    def __call__(self, embeddings: Tensor, active: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Quantize (B, T, width) with the first `active` (B,) codebooks; returns the sum and the commitment loss."""
        residual, total = embeddings, torch.zeros_like(embeddings)
        commitment = embeddings.new_zeros(())
        for number, layer in enumerate(self.layers):
            vectors = layer.project_in(residual)
            flat = vectors.detach().reshape(-1, vectors.shape[-1]).float()
            if not self._begun and not bool(layer.codebook.cluster_size.any()):  # Not begun in an earlier piece either
                self._learn(layer.codebook, flat, layer.codebook.quantize(flat), generator)
            codes = layer.codebook.quantize(flat)
            self._learn(layer.codebook, flat, codes, generator)
            chosen = F.embedding(codes, layer.codebook.embed).view_as(vectors)
            used = (active > number).to(vectors.dtype).view(-1, 1, 1)
            commitment = commitment + (used * (vectors - chosen.detach()) ** 2).mean()
            out = layer.project_out(vectors + (chosen - vectors).detach())
            total = total + used * out
            residual = residual - out.detach()
        self._begun = True
        return total, commitment

    @torch.no_grad()
    def _learn(self, book: Any, vectors: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        counts = torch.zeros_like(book.cluster_size).index_add_(0, codes, torch.ones_like(codes, dtype=torch.float32))
        sums = torch.zeros_like(book.embed_avg).index_add_(0, codes, vectors)
        book.cluster_size.lerp_(counts, 1 - self.decay)
        book.embed_avg.lerp_(sums, 1 - self.decay)
        rows = torch.randint(len(vectors), (len(book.embed),), generator=generator, device=vectors.device)
        dead = book.cluster_size < self.dead
        share = len(vectors) / len(book.embed)
        fresh = vectors[rows] * (1 + 0.01 * torch.randn(1, device=vectors.device, generator=generator))
        book.embed_avg.copy_(torch.where(dead[:, None], fresh * share, book.embed_avg))
        book.cluster_size.copy_(torch.where(dead, torch.full_like(book.cluster_size, share), book.cluster_size))
        book.embed.copy_(book.embed_avg / book.cluster_size.clamp(min=1e-6)[:, None])


class SpectralLoss(nn.Module):
    """Distance of two waveforms by magnitudes alone, at several resolutions, and by log-mel spectrograms.

    No term knows phase: the code of a sound shouldn't depend on it, or the language model couldn't foretell it.
    """

    SIZES = (2048, 1024, 512, 256, 128)
    FLOOR = 5e-3
    """40 dB below a harmonic of speech. A lower one makes most of the loss about how silent silence is."""

    def __init__(self) -> None:
        super().__init__()
        for size in self.SIZES:
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)
        self.register_buffer("mel2048", mel_filters(2048, 80), persistent=False)
        self.register_buffer("mel512", mel_filters(512, 40), persistent=False)

    def forward(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """(B, samples) twice to (spectral loss, mel loss), both means over resolutions."""
        spectral = made.new_zeros(())
        mel = made.new_zeros(())
        for size in self.SIZES:
            a, b = self._magnitude(made, size), self._magnitude(wanted, size)
            convergence = (a - b).pow(2).sum((1, 2)).add(1e-8).sqrt() / b.pow(2).sum((1, 2)).add(1e-2).sqrt()
            spectral = spectral + convergence.mean() + (self._log(a) - self._log(b)).abs().mean()
            if size in (2048, 512):
                filters = getattr(self, f"mel{size}")
                mel = mel + (self._log(filters @ a) - self._log(filters @ b)).abs().mean()
        return spectral / len(self.SIZES), mel / 2

    def _magnitude(self, wave: Tensor, size: int) -> Tensor:
        window = getattr(self, f"window{size}")
        spectrum = torch.stft(wave, size, size // 4, window=window, normalized=True, return_complex=True)
        return (spectrum.real.pow(2) + spectrum.imag.pow(2) + 1e-10).sqrt()

    def _log(self, magnitude: Tensor) -> Tensor:
        return (magnitude + self.FLOOR).log()


def rotate_phase(wave: Tensor, angle: Tensor) -> Tensor:
    """Turn the phase of every frequency by an angle (B,): another waveform of the same sound."""
    spectrum = torch.fft.rfft(wave)
    return torch.fft.irfft(spectrum * torch.polar(torch.ones_like(angle), angle)[:, None], n=wave.shape[-1])
