"""What the model tests share: a stand-in for CUDA capture, upstream models, canvases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def load_upstream(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    from omnivoice import OmniVoice

    return OmniVoice.from_pretrained(str(path), device_map=device, dtype=dtype).eval()


class Standin:
    """Stands in for CUDA capture: runs the function once, and again at each replay. Memory is made up."""

    def __init__(self, bytes_each: int = 1 << 20) -> None:
        self.bytes_each = bytes_each
        self.used_bytes = 0
        self.resets = 0

    def __call__(self, run: Callable[[], torch.Tensor]) -> tuple[Any, torch.Tensor]:
        output = run().clone()
        standin = self

        class Graph:
            def replay(self) -> None:
                output.copy_(run())

            def reset(self) -> None:
                standin.resets += 1

        self.used_bytes += self.bytes_each
        return Graph(), output

    def restart(self) -> None:
        self.used_bytes = 0


def canvas(model: Any, prompt: int = 6, target: int = 10, items: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """What upstream's loop hands to forward: items with guidance branches, half of the target decided."""
    config, device = model.config, model.device
    g = torch.Generator().manual_seed(seed)
    length = prompt + target
    codebooks, mask_id = config.num_audio_codebook, config.audio_mask_id
    ids = torch.full((2 * items, codebooks, length), mask_id)
    audio = torch.zeros(2 * items, length, dtype=torch.bool)
    attention = torch.zeros(2 * items, 1, length, length, dtype=torch.bool)
    for i in range(items):
        tokens = torch.randint(0, mask_id, (codebooks, target), generator=g)
        tokens[torch.rand(codebooks, target, generator=g) < 0.5] = mask_id
        ids[i, :, :prompt] = torch.randint(0, 200, (prompt,), generator=g)
        ids[i, :, prompt:] = tokens
        audio[i, prompt:] = True
        attention[i] = True
        ids[items + i, :, :target] = tokens
        audio[items + i, :target] = True
        attention[items + i, :, :target, :target] = True
        attention[items + i, 0].diagonal()[target:] = True
    made = {"input_ids": ids, "audio_mask": audio, "attention_mask": attention}
    return {name: value.to(device) for name, value in made.items()}


def counting_rows(target: int, prompt: int, items: int) -> list[tuple[int, slice]]:
    """(batch row, positions) that upstream reads: whole conditional rows, targets of the unconditional."""
    return [(i, slice(0, prompt + target)) for i in range(items)] + [
        (items + i, slice(0, target)) for i in range(items)
    ]
