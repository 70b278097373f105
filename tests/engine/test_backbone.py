"""The packed backbone against upstream's forward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton.engine.backbone import Backbone
from omnivoice_triton.engine.layout import Bucket, Placement, pack
from omnivoice_triton.engine.ops import get_ops, resolve_backend
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.kernels.engine_reference import embed_frames
from omnivoice_triton.kernels.tiles import GemmTile, VarlenTile
from omnivoice_triton.speech import InputError, ModeUnavailable

from .tiny import make_model

REQUESTS = [(5, 3, True), (9, 1, True), (4, 6, False)]  # prompt rows, frames, guided
TILES = Tiles(VarlenTile(8, 16, 4, 1))


class Case:
    """Random prompts and canvases for one model, packed, and upstream's logits for the same."""

    def __init__(self, model: Any, *, backend: str = "reference", tiles: Tiles = TILES, spare: int = 7) -> None:
        self.model = model
        self.weights = BackboneWeights.from_upstream(model)
        device = self.weights.device
        generator = torch.Generator().manual_seed(3)
        total = sum(p + f * (2 if g else 1) for p, f, g in REQUESTS)
        self.bucket = Bucket(total + spare, len(REQUESTS) + 1, tiles.for_attention(total).rows)
        self.backbone = Backbone(self.weights, get_ops(backend), tiles, self.bucket.rows)
        shape = self.weights.shape
        self.ids, placements = [], []
        prompt_at = frame_at = 0
        n_prompt, n_frames = (sum(r[i] for r in REQUESTS) for i in (0, 1))
        self.prompt = torch.zeros(n_prompt, shape.hidden, dtype=self.weights.dtype, device=device)
        self.canvas = torch.zeros(n_frames, shape.codebooks, dtype=torch.int32, device=device)
        for slot, (prompt, frames, guided) in enumerate(REQUESTS):
            text = torch.randint(0, 64, (prompt - 2,), generator=generator).to(device)
            reference = torch.randint(0, 32, (2, shape.codebooks), generator=generator).to(device)
            tokens = torch.randint(0, 33, (frames, shape.codebooks), generator=generator).to(device)
            where = slice(prompt_at, prompt_at + prompt)
            self.prompt[where] = torch.cat(
                (self.weights.text_embedding[text], embed_frames(reference, self.weights.audio_embedding))
            )
            self.canvas[frame_at : frame_at + frames] = tokens
            self.ids.append((text, reference, tokens))
            placements.append(
                Placement(
                    slot,
                    np.arange(prompt_at, prompt_at + prompt, dtype=np.int32),
                    np.arange(frame_at, frame_at + frames, dtype=np.int32),
                    guided,
                )
            )
            prompt_at, frame_at = prompt_at + prompt, frame_at + frames
        self.layout = pack(placements, self.bucket)

    def logits(self) -> torch.Tensor:
        names = ("rows", "heads", "tiles")
        tables = {name: torch.from_numpy(self.layout.table(name).copy()).to(self.prompt.device) for name in names}
        with torch.no_grad():
            return self.backbone.run(self.bucket, tables, self.prompt, self.canvas).clone()

    def upstream(self) -> list[torch.Tensor]:
        """[T, C, Va] per branch, in the order of the head rows."""
        wanted = []
        for (text, reference, tokens), (_, frames, guided) in zip(self.ids, REQUESTS, strict=True):
            audio = torch.cat((reference, tokens)).T
            ids = torch.cat((text.expand(audio.shape[0], -1), audio), dim=1)
            is_audio = torch.arange(ids.shape[1], device=ids.device) >= len(text)
            wanted.append(self._forward(ids, is_audio)[-frames:])
            if guided:
                wanted.append(self._forward(tokens.T, torch.ones(frames, dtype=torch.bool, device=tokens.device)))
        return wanted

    def _forward(self, ids: torch.Tensor, is_audio: torch.Tensor) -> torch.Tensor:
        n = ids.shape[1]
        everyone = torch.ones(1, 1, n, n, dtype=torch.bool, device=ids.device)
        with torch.no_grad():
            logits = self.model(input_ids=ids[None], audio_mask=is_audio[None], attention_mask=everyone).logits
        return logits[0].transpose(0, 1)


def relative_error(got: torch.Tensor, want: list[torch.Tensor]) -> float:
    flat = torch.cat(want).flatten(1).float()
    return float((got[: flat.shape[0]].float() - flat).norm() / flat.norm())


def test_logits_equal_upstreams() -> None:
    case = Case(make_model())
    assert relative_error(case.logits(), case.upstream()) < 2e-6


def test_logits_in_fp64_leave_no_doubt() -> None:
    """In fp64 nothing is left of rounding, so a wrong operation can't hide."""
    case = Case(make_model(dtype=torch.float64))
    assert relative_error(case.logits(), case.upstream()) < 1e-7  # RoPE's angles stay fp32 upstream


def test_bf16_is_as_near_to_fp32_as_upstream() -> None:
    exact = Case(make_model()).upstream()
    case = Case(make_model(dtype=torch.bfloat16))
    upstream = case.upstream()
    error = relative_error(torch.cat(upstream).flatten(1), exact)
    assert relative_error(case.logits(), exact) <= 1.25 * error


def test_rows_of_the_bucket_that_nobody_uses_change_nothing() -> None:
    model = make_model(dtype=torch.float64)
    lone, padded = Case(model, spare=0), Case(model, spare=40)
    used = sum(len(u) for u in lone.upstream())
    torch.testing.assert_close(lone.logits()[:used], padded.logits()[:used], rtol=1e-9, atol=1e-9)


def test_stale_buffers_change_nothing() -> None:
    case = Case(make_model())
    before = case.logits()
    used = sum(len(u) for u in case.upstream())
    for buffer in (case.backbone.workspace._arena, case.backbone.workspace._narrow):
        buffer.fill_(float("nan"))
    assert torch.equal(case.logits()[:used], before[:used])


@pytest.mark.parametrize("planted", ["causal attention", "codebook offset", "positions", "swapped q and k norm"])
def test_planted_faults_are_seen(planted: str) -> None:
    case = Case(make_model())
    want = case.upstream()
    if planted == "causal attention":
        case.layout.table("tiles")[0, 1] -= 1  # the last key of the longest segment is lost
    elif planted == "codebook offset":
        table = case.weights.audio_embedding
        case.weights.audio_embedding = table.roll(1, 0)
    elif planted == "positions":
        case.layout.table("rows")[:, 1] += 1  # shifts cancel within a segment, so only one row is moved
        case.layout.table("rows")[0, 1] += 1
    else:
        layer = case.weights.layers[0]
        q_norm = layer.q_norm.clone()
        layer.q_norm.copy_(layer.k_norm)
        layer.k_norm.copy_(q_norm)
    assert relative_error(case.logits(), want) > 1e-4


def test_split_gemms_go_through_the_tile_table() -> None:
    tile = GemmTile(16, 16, 16, 2, 4, 1)
    model = make_model()
    plain, split = (
        Case(model),
        Case(model, tiles=Tiles(TILES.default_attention, gemm={"o": ((64, tile),), "down": ((8, tile),)})),
    )
    calls = []
    spied = split.backbone.ops.split_k
    object.__setattr__(split.backbone.ops, "split_k", lambda *a, **k: (calls.append(a[0].shape), spied(*a, **k)))
    used = sum(len(u) for u in plain.upstream())
    torch.testing.assert_close(split.logits()[:used], plain.logits()[:used], rtol=1e-4, atol=1e-4)
    assert len(calls) == 2  # o of both layers; `down` is for fewer rows


SUMMED = GemmTile(16, 16, 16, 2, 4, 1)
WHOLE = SUMMED._replace(splits=1)
VARIANTS = {
    "cublas": {},
    "split o": {"o": SUMMED},
    "folded": {"qkv": WHOLE, "gate_up": WHOLE, "o": SUMMED, "down": SUMMED},
    "swiglu in down": {"down": SUMMED._replace(swiglu=True)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_to_cut_the_gemms_is_the_same_network(variant: str) -> None:
    gemm = {name: ((64, tile),) for name, tile in VARIANTS[variant].items()}
    case = Case(make_model(), tiles=Tiles(TILES.default_attention, gemm=gemm))
    assert relative_error(case.logits(), case.upstream()) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_triton_equals_reference(device: str, variant: str) -> None:
    model = make_model(layers=1, hidden=32, head_dim=32, heads=2, kv_heads=1).to(device)
    tiles = Tiles(VarlenTile(8, 16, 4, 1), gemm={name: ((64, tile),) for name, tile in VARIANTS[variant].items()})
    want, got = Case(model, tiles=tiles), Case(model, backend="triton", tiles=tiles)
    used = sum(len(u) for u in want.upstream())
    torch.testing.assert_close(got.logits()[:used], want.logits()[:used], rtol=1e-4, atol=1e-4)


def test_tile_table_is_data() -> None:
    data = {
        "attention": [{"up_to": 128, "tile": {"rows": 16, "block_n": 64, "num_warps": 4, "num_stages": 2}}],
        "gemm": {"o": [{"up_to": 320, "tile": dict(zip(GemmTile._fields, (64, 128, 64, 2, 4, 3), strict=False))}]},
    }
    tiles = Tiles.parse(data, VarlenTile(32, 64, 4, 2))
    assert tiles.for_attention(128).rows == 16
    assert tiles.for_attention(129).rows == 32
    assert tiles.for_gemm("o", 320) == GemmTile(64, 128, 64, 2, 4, 3)
    assert tiles.for_gemm("o", 321) is None
    assert tiles.for_gemm("down", 1) is None
    assert tiles.partial_floats(256, 1024) == 2 * 256 * 1024
    with pytest.raises(InputError, match="names GEMM 'head'"):
        Tiles.parse({"gemm": {"head": []}}, tiles.default_attention)
    one_sum = [{"up_to": 320, "tile": GemmTile(64, 128, 64, 1, 4, 3)._asdict()}]
    with pytest.raises(InputError, match="Triton tile for heads"):
        Tiles.parse({"gemm": {"heads": one_sum}}, tiles.default_attention)
    with pytest.raises(InputError, match="splits K of qkv"):
        Tiles.parse({"gemm": {"qkv": data["gemm"]["o"]}}, tiles.default_attention)  # type: ignore[index]
    with pytest.raises(InputError, match="bad tile table entry"):
        Tiles.parse({"attention": [{"up_to": 1, "tile": {"rows": 1}}]}, tiles.default_attention)
    with pytest.raises(InputError, match="must rise in up_to"):
        Tiles.parse({"gemm": {"o": data["gemm"]["o"] * 2}}, tiles.default_attention)  # type: ignore[index]


def test_back_ends_are_chosen_by_name_or_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_backend("auto", torch.device("cpu")) == "reference"
    assert resolve_backend("auto", torch.device("cuda")) == "triton"
    with pytest.raises(InputError, match="unknown backend 'cuda'"):
        resolve_backend("cuda", torch.device("cpu"))
    monkeypatch.setattr("omnivoice_triton.kernels.launch._INTERPRETING", False)
    with pytest.raises(ModeUnavailable, match="needs a CUDA device"):
        resolve_backend("triton", torch.device("cpu"))
