"""Random logits, scores and canvases for the tests of what decides cells."""

from __future__ import annotations

import torch

from .packed import Packed, make_packed, slot_rows

REQUESTS = [(2, 3, True), (1, 1, True), (1, 2, False)]
CODEBOOKS = 2


class Case:
    """Random logits and a part-decided canvas for packed requests."""

    def __init__(
        self,
        device: str,
        *,
        ids: int = 20,
        dtype: torch.dtype = torch.float32,
        requests: object = None,
        **settings: float,
    ) -> None:
        self.packed: Packed = make_packed(requests or REQUESTS, device=device)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(5)
        n = self.packed.bucket.rows
        self.ids = ids
        logits = torch.randn(n, CODEBOOKS * (ids + 1), generator=generator) * 3
        self.logits = logits.to(device, dtype)
        self.canvas = torch.full((12, CODEBOOKS), ids, dtype=torch.int32, device=device)
        self.slots = slot_rows(len(self.packed.placements) + 2, device=device, **settings)  # type: ignore[arg-type]
        self.tokens = torch.full((n, CODEBOOKS), -7, dtype=torch.int32, device=device)
        self.scores = torch.full((n, CODEBOOKS), float("nan"), device=device)
        self.uniforms: dict[str, torch.Tensor] = {}

    def from_buffer(self) -> Case:
        generator = torch.Generator().manual_seed(6)
        n = self.packed.bucket.rows
        device = self.logits.device
        self.uniforms = {
            "position_uniforms": torch.rand(n, CODEBOOKS, generator=generator).to(device),
            "class_uniforms": torch.rand(n, CODEBOOKS, self.ids + 1, generator=generator).to(device),
        }
        return self

    def score(self, function: object) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, scores = self.tokens.clone(), self.scores.clone()
        targets = self.packed.table("targets")
        function(  # type: ignore[operator]
            self.logits, targets, self.canvas, self.slots, tokens=tokens, scores=scores, **self.uniforms
        )
        return tokens, scores
