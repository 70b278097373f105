"""The kernels of one step, launched in order: embed, network, score, select. This is what a graph holds.

It knows buffers only, not who runs or what was captured: an engine that is let go then frees its memory at once,
without waiting for Python's garbage collector.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import numpy as np
import torch

from omnivoice_triton.engine.backbone import Backbone
from omnivoice_triton.engine.layout import Bucket
from omnivoice_triton.engine.noise import Uniforms
from omnivoice_triton.engine.state import DecodeState


class StepLaunches:
    """Launches a bucket's step on the current stream.

    Args:
        backbone: the network.
        state: the persistent buffers.
        flat: of each bucket, its tables one after the other, as `layout.pack` writes them.
        uniforms: noise buffers, or None for Philox.
    """

    def __init__(
        self,
        backbone: Backbone,
        state: DecodeState,
        flat: Mapping[Bucket, torch.Tensor],
        uniforms: Uniforms | None,
    ) -> None:
        self._backbone = backbone
        self._state = state
        self._uniforms = uniforms
        self._tables = {
            bucket: {
                name: tables[offset : offset + int(np.prod(shape))].view(shape)
                for name, (offset, shape) in bucket.spans.items()
            }
            for bucket, tables in flat.items()
        }

    def enqueue(self, bucket: Bucket) -> None:
        """All kernels of one step."""
        self._enqueue(bucket, self._backbone)

    def rehearse(self, bucket: Bucket) -> None:
        """As `enqueue`, with two layers: those between the first and the last launch no other kernels."""
        weights = copy(self._backbone.weights)
        weights.layers = weights.layers[:2]
        weights.shape = replace(weights.shape, layers=len(weights.layers))
        backbone = copy(self._backbone)
        backbone.weights = weights
        self._enqueue(bucket, backbone)

    def logits(self, bucket: Bucket) -> torch.Tensor:
        """Embed and network only: logits [R, C * Va] of the bucket's head rows."""
        return self._logits(bucket, self._backbone)

    def _logits(self, bucket: Bucket, backbone: Backbone) -> torch.Tensor:
        return backbone.run(bucket, self._tables[bucket], self._state.prompt, self._state.canvas)

    def _enqueue(self, bucket: Bucket, backbone: Backbone) -> None:
        tables, state = self._tables[bucket], self._state
        logits = self._logits(bucket, backbone)
        tokens, scores = state.tokens[: bucket.rows], state.scores[: bucket.rows]
        uniforms = {}
        if self._uniforms is not None:
            uniforms["position_uniforms"] = self._uniforms.position[: bucket.rows]
            uniforms["class_uniforms"] = self._uniforms.classes[: bucket.rows]
        ops = backbone.ops
        ops.score_cells(logits, tables["targets"], state.canvas, state.slots, tokens=tokens, scores=scores, **uniforms)
        ops.select_cells(tables["items"], tables["targets"], tokens, scores, canvas=state.canvas, slots=state.slots)
