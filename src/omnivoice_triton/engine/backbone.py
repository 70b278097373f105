"""The language model on packed rows: from tables and tokens to the logits of the frames being decoded.

Per layer: fused QKV GEMM; split, QK-norm and RoPE in one kernel; attention within segments; o GEMM; add + norm; fused
gate and up GEMM; SwiGLU; down GEMM; add + norm with the next layer's weight. The last norm and the audio heads run on
the frames' rows only. Values are rounded where transformers' Qwen3 rounds them (model of OmniVoice 0.2.1). Two options
give that up: INT8 query-key products, and FP8 layers (`fp8`) for buckets of many rows.
"""

from __future__ import annotations

from functools import partial

import torch

from omnivoice_triton.engine.fp8 import Fp8Layers
from omnivoice_triton.engine.layout import Bucket
from omnivoice_triton.engine.ops import Ops
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.engine.weights import BackboneWeights, LayerWeights
from omnivoice_triton.engine.workspace import Activations, Workspace
from omnivoice_triton.kernels.int8_keys import Int8Keys
from omnivoice_triton.kernels.tiles import GemmTile, HopperTile
from omnivoice_triton.speech import InputError

ATTENTIONS = ("exact", "int8")


def check_attention(attention: str) -> str:
    """Raise InputError for an unknown kind of attention."""
    if attention not in ATTENTIONS:
        raise InputError(f"unknown attention {attention!r}: choose one of {', '.join(ATTENTIONS)}")
    return attention


class Backbone:
    """Runs the network into preallocated buffers: no allocation, no host read, so that a graph can hold it.

    Args:
        weights: of the model.
        ops: the back end.
        tiles: tile choices; may be replaced by others that need no more partial sums than `partial_floats`.
        max_rows: rows of the largest bucket.
        partial_floats: fp32 values for partial sums; by default what `tiles` needs.
        attention: `exact`, or `int8` for INT8 query-key products; `tiles` must then give Triton's attention tiles.
        fp8: the layers in FP8, for buckets that they serve.
    """

    def __init__(
        self,
        weights: BackboneWeights,
        ops: Ops,
        tiles: Tiles,
        max_rows: int,
        *,
        partial_floats: int | None = None,
        attention: str = "exact",
        fp8: Fp8Layers | None = None,
    ) -> None:
        self.weights = weights
        self.ops = ops
        self.tiles = tiles
        if partial_floats is None:
            partial_floats = tiles.partial_floats(max_rows, weights.shape.hidden)
        self.workspace = Workspace(weights.shape, max_rows, partial_floats, weights.dtype, weights.device)
        # No segment is longer than all rows together.
        self._cos, self._sin = weights.rotary_tables(max_rows)
        self.fp8 = fp8
        self._keys: Int8Keys | None = None
        if check_attention(attention) == "int8":
            s = weights.shape
            self._keys = Int8Keys.allocate(max_rows, s.kv_heads, s.head_dim, weights.device)

    def run(
        self, bucket: Bucket, tables: dict[str, torch.Tensor], prompt: torch.Tensor, canvas: torch.Tensor
    ) -> torch.Tensor:
        """Logits [R, C * Va] of the head rows, in a buffer that the next call overwrites.

        Args:
            bucket: the launch shape.
            tables: its `rows`, `heads` and `tiles` on the device.
            prompt: [P, H] embedded prompt rows.
            canvas: [F, C] int32 tokens of every frame.
        """
        w, ops = self.weights, self.ops
        eps = w.shape.eps
        a = self.workspace.views(bucket.rows)
        first = w.layers[0].input_norm
        ops.embed_rows(tables["rows"], prompt, canvas, w.audio_embedding, first, eps, x=a.x, y=a.y)
        if self.fp8 is not None and self.fp8.serves(bucket.rows):
            attend = partial(self._attend, tables["tiles"], a)
            self.fp8.run(w, a, tables["rows"], tables["heads"], (self._cos, self._sin), attend)
        else:
            self._run_layers(tables, a)
        tile = self.tiles.for_gemm("heads", bucket.rows)
        if tile is None:
            return torch.mm(a.y, w.audio_heads.t(), out=a.logits)
        ops.gemm(a.y, w.audio_heads, tile, out=a.logits)
        return a.logits

    def _run_layers(self, tables: dict[str, torch.Tensor], a: Activations) -> None:
        """From the embedded rows in a.x and a.y to the final norm of the head rows in a.y."""
        w, ops = self.weights, self.ops
        s, eps = w.shape, w.shape.eps
        for index, layer in enumerate(w.layers):
            self._qkv(layer, tables["rows"], a)
            self._attend(tables["tiles"], a)
            ops.add_norm(self._o(layer, a), a.x, layer.post_norm, eps, y=a.y)
            delta = self._mlp(layer, a)
            if index + 1 < s.layers:
                ops.add_norm(delta, a.x, w.layers[index + 1].input_norm, eps, y=a.y)
            else:
                ops.add_norm(delta, a.x, w.final_norm, eps, y=a.y, pick=tables["heads"])

    def _attend(self, tiles: torch.Tensor, a: Activations) -> None:
        """a.qkv to a.attended."""
        s = self.weights.shape
        settings = {
            "q_heads": s.q_heads,
            "kv_heads": s.kv_heads,
            "scale": s.head_dim**-0.5,
            "tile": self.tiles.for_attention(a.x.shape[0]),
            "out": a.attended,
        }
        if self._keys is None:
            self.ops.attention(a.qkv, tiles, **settings)
        else:
            self.ops.int8_attention(a.qkv, tiles, **settings, keys=self._keys)

    def _qkv(self, layer: LayerWeights, rows: torch.Tensor, a: Activations) -> None:
        """a.y to a.qkv, with q and k normed and rotated."""
        s = self.weights.shape
        tile = self.tiles.for_gemm("qkv", a.y.shape[0])
        angles = (rows, self._cos, self._sin, layer.q_norm, layer.k_norm, s.eps)
        heads = {"q_heads": s.q_heads, "kv_heads": s.kv_heads}
        if tile is None:
            torch.mm(a.y, layer.qkv.t(), out=a.qkv)
            self.ops.qk_norm_rope(a.qkv, *angles, **heads)
        else:
            self.ops.qkv_rope(a.y, layer.qkv, *angles, tile, **heads, qkv=a.qkv)

    def _o(self, layer: LayerWeights, a: Activations) -> torch.Tensor:
        """a.attended to what the layer adds, [R, H] or fp32 partial sums [P, R, H]."""
        tile = self.tiles.for_gemm("o", a.y.shape[0])
        if tile is None:
            return torch.mm(a.attended, layer.o.t(), out=a.delta)
        return self._added(a.attended, layer.o, tile, a)

    def _mlp(self, layer: LayerWeights, a: Activations) -> torch.Tensor:
        """a.y to what the layer adds, [R, H] or fp32 partial sums [P, R, H]."""
        rows, middle = a.y.shape[0], self.weights.shape.intermediate
        fused, down = self.tiles.for_gemm("gate_up", rows), self.tiles.for_gemm("down", rows)
        if fused is not None:
            self.ops.gate_up(a.y, layer.gate_up, fused, out=a.activated)
        else:
            torch.mm(a.y, layer.gate_up.t(), out=a.gate_up)
            if down is not None and down.swiglu:
                partials = self._partials(down, a)
                self.ops.split_k(a.gate_up, layer.down, down, partials=partials, swiglu=True)
                return partials
            self.ops.swiglu(a.gate_up[:, :middle], a.gate_up[:, middle:], out=a.activated)
        if down is None:
            return torch.mm(a.activated, layer.down.t(), out=a.delta)
        return self._added(a.activated, layer.down, down, a)

    def _added(
        self, x: torch.Tensor, weight: torch.Tensor, tile: GemmTile | HopperTile, a: Activations
    ) -> torch.Tensor:
        """x weightᵀ by a tile: [R, H], or fp32 partial sums [P, R, H] for the norm to add up."""
        if isinstance(tile, HopperTile) and tile.sums:
            self.ops.gemm(x, weight, tile, out=a.delta)
            return a.delta
        partials = self._partials(tile, a)
        self.ops.split_k(x, weight, tile, partials=partials)
        return partials

    def _partials(self, tile: GemmTile | HopperTile, a: Activations) -> torch.Tensor:
        rows, hidden = a.x.shape
        return a.partials[: tile.splits * rows * hidden].view(tile.splits, rows, hidden)
