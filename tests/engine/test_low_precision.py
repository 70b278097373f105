"""The lossy options of the engine: INT8-QK attention and FP8 layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnivoice_triton.engine import fp8 as fp8_module
from omnivoice_triton.engine.backbone import Backbone
from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.fp8 import FP8_FROM_ROWS, Fp8Layers, Fp8Matrix, check_fp8
from omnivoice_triton.engine.ops import get_ops
from omnivoice_triton.engine.step_graphs import run_eagerly
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.kernels import scaled_mm
from omnivoice_triton.kernels.tiles import VarlenTile
from omnivoice_triton.speech import InputError, ModeUnavailable

from .test_backbone import TILES, Case, relative_error
from .tiny import generation_config, make_model, make_task

BARS = {"int8": 0.005, "fp8": 0.045, "both": 0.045}
"""Relative error of the logits of two `loud` layers; below a tenth of it nothing was quantised."""


def loud(**dimensions: Any) -> Any:
    """A model whose layers weigh more than its embeddings, so that what goes wrong in them shows."""
    model = make_model(**{"hidden": 64, "intermediate": 96, "head_dim": 32, **dimensions})
    with torch.no_grad():
        for layer in model.llm.layers:
            layer.self_attn.o_proj.weight *= 4
            layer.mlp.down_proj.weight *= 8
    return model


def lossy(case: Case, *, backend: str = "reference", what: str, from_rows: int = 1) -> Case:
    """The case on a backbone with the options."""
    ops, rows = get_ops(backend), case.bucket.rows
    fp8 = Fp8Layers(case.weights, ops, rows, from_rows) if what != "int8" else None
    attention = "exact" if what == "fp8" else "int8"
    case.backbone = Backbone(case.weights, ops, TILES, rows, attention=attention, fp8=fp8)
    return case


class TestBackbone:
    @pytest.mark.parametrize("what", BARS)
    def test_logits_are_near_upstreams_and_not_its_own(self, what: str) -> None:
        case = lossy(Case(loud()), what=what)
        error = relative_error(case.logits(), case.upstream())
        assert BARS[what] / 10 < error < BARS[what]

    @pytest.mark.parametrize("what", BARS)
    def test_triton_equals_reference(self, device: str, what: str) -> None:
        if what != "int8" and device == "cuda" and torch.cuda.get_device_capability() < scaled_mm.MIN_CAPABILITY:
            pytest.skip("no FP8 before compute capability 8.9")
        model = make_model(layers=1, hidden=32, head_dim=32, heads=2, kv_heads=1).to(device)
        want = lossy(Case(model), what=what)
        got = lossy(Case(model), what=what, backend="triton")
        used = sum(len(u) for u in want.upstream())
        # Where a sum before a quantisation ends on the other side of a midpoint, a value moves by a whole step.
        error = relative_error(got.logits()[:used], [want.logits()[:used]])
        assert error < BARS[what] / 10

    def test_below_the_threshold_nothing_changes(self) -> None:
        model = make_model()
        plain = Case(model)
        rows = plain.bucket.rows
        used = sum(len(u) for u in plain.upstream())
        below = lossy(Case(model), what="fp8", from_rows=rows + 1).logits()[:used]
        at = lossy(Case(model), what="fp8", from_rows=rows).logits()[:used]
        assert torch.equal(below, plain.logits()[:used])
        assert not torch.equal(at, below)

    @pytest.mark.parametrize("what", BARS)
    def test_stale_buffers_change_nothing(self, what: str) -> None:
        case = lossy(Case(make_model()), what=what)
        before = case.logits()
        used = sum(len(u) for u in case.upstream())
        backbone = case.backbone
        for buffer in (backbone.workspace._arena, backbone.workspace._narrow):
            buffer.fill_(float("nan"))
        if backbone.fp8 is not None:
            backbone.fp8._values.copy_(torch.full_like(backbone.fp8._scale[:1, 0], float("nan")))
            backbone.fp8._scale.fill_(float("nan"))
        if backbone._keys is not None:
            backbone._keys.scales.fill_(float("nan"))
            backbone._keys.means.fill_(float("nan"))
        assert torch.equal(case.logits()[:used], before[:used])

    @pytest.mark.parametrize("planted", ["layers swapped", "o of another layer", "a channel's scale", "no head rows"])
    def test_planted_faults_are_seen(self, planted: str) -> None:
        case = lossy(Case(loud()), what="fp8")
        fp8 = case.backbone.fp8
        assert fp8 is not None
        want, first = case.upstream(), fp8._layers[0]
        if planted == "layers swapped":
            fp8._layers = fp8._layers[::-1]
        elif planted == "o of another layer":
            object.__setattr__(first, "o", fp8._layers[1].o)
        elif planted == "a channel's scale":
            first.qkv.scale[0, -16:] *= 2  # half of a head's values
        else:
            case.layout.table("heads")[:] = 0
        assert relative_error(case.logits(), want) > 2 * BARS["fp8"]

    def test_quantised_weights_and_their_size(self) -> None:
        weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 48)[:, None]
        matrix = Fp8Matrix.quantise(weight)
        back = matrix.values.float() * matrix.scale.t()
        assert ((back - weight).norm(dim=1) / weight.norm(dim=1)).max() < 0.035  # every channel, whatever its size
        assert matrix.nbytes == 48 * 64 + 48 * 4
        case = lossy(Case(make_model()), what="fp8")
        assert case.backbone.fp8 is not None
        s = case.weights.shape
        layer = s.qkv_width * s.hidden + s.hidden * s.attention_width + 3 * s.hidden * s.intermediate
        rows = case.bucket.rows
        scales = 4 * (s.qkv_width + 2 * s.hidden + 2 * s.intermediate)
        assert case.backbone.fp8.nbytes == s.layers * (layer + scales) + rows * (max(64, s.intermediate) + 4)


class TestEngine:
    @staticmethod
    def tokens(model: Any, *, frames: list[int], **options: Any) -> tuple[list[torch.Tensor], Engine]:
        engine = Engine(model, max_rows=128, max_items=4, granule=32, capture=run_eagerly, **options)
        engine.manual_seed(5)
        return engine.generate_tokens(make_task(model, frames), generation_config(num_step=4)), engine

    @pytest.mark.parametrize(
        "options",
        [{"attention": "int8"}, {"precision": "fp8", "fp8_from_rows": 1}],
        ids=["int8", "fp8"],
    )
    def test_two_runs_are_the_same(self, options: dict[str, Any]) -> None:
        model = make_model()
        first, engine = self.tokens(model, frames=[9, 4], **options)
        again, _ = self.tokens(model, frames=[9, 4], **options)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert all(0 <= int(t.min()) <= int(t.max()) < 32 for t in first)
        assert ("INT8-QK attention" if "attention" in options else "FP8 from 1 rows") in repr(engine)

    def test_int8_attention_of_an_item_depends_on_nobody(self) -> None:
        model = make_model()
        together, _ = self.tokens(model, frames=[9, 4, 6], attention="int8")
        alone, _ = self.tokens(model, frames=[9], attention="int8")
        assert torch.equal(together[0], alone[0])

    def test_a_bucket_holds_one_or_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = make_model()
        ran: list[int] = []
        run = Fp8Layers.run

        def spied(self: Fp8Layers, w: Any, a: Any, *args: Any) -> None:
            ran.append(len(a.x))
            run(self, w, a, *args)

        monkeypatch.setattr(Fp8Layers, "run", spied)
        exact, plain = self.tokens(model, frames=[9])
        assert plain.runner.backbone.fp8 is None
        got, _ = self.tokens(model, frames=[9], precision="fp8", fp8_from_rows=96)
        assert not ran
        assert torch.equal(got[0], exact[0])
        self.tokens(model, frames=[16, 16], precision="fp8", fp8_from_rows=96)
        assert set(ran) == {128} or set(ran) == {96}
        assert len(ran) == 4  # a step each

    def test_defaults_are_exact(self) -> None:
        engine = Engine(make_model(), max_rows=64, max_items=1)
        assert engine.attention == "exact"
        assert engine.precision is None
        assert engine.runner.backbone._keys is None
        assert FP8_FROM_ROWS == 512

    def test_int8_keeps_tritons_tile(self) -> None:
        tiles = Tiles(VarlenTile(32, 64, 4, 2), attention=((64, VarlenTile(16, 64, 4, 2)),))
        engine = Engine(make_model(), max_rows=64, max_items=1, tiles=tiles, attention="int8", capture=run_eagerly)
        assert {bucket.tile_rows for bucket in engine.runner.grid.buckets} == {32}
        assert engine.runner.backbone.tiles.for_attention(64) == tiles.default_attention

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"attention": "int4"}, "unknown attention 'int4': choose one of exact, int8"),
            ({"precision": "fp16"}, "unknown precision 'fp16': choose 'fp8', or None"),
        ],
    )
    def test_unknown_choices(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            Engine(make_model(), max_rows=64, max_items=1, **options)

    def test_odd_sizes_are_refused_and_nothing_stays_shared(self) -> None:
        model = make_model(intermediate=40)
        with pytest.raises(InputError, match="multiples of 16"):
            Engine(model, max_rows=64, max_items=1, precision="fp8")
        mlp = model.llm.layers[0].mlp
        gate, up = (x.weight.untyped_storage().data_ptr() for x in (mlp.gate_proj, mlp.up_proj))
        assert gate != up


class TestDevices:
    @pytest.fixture
    def weights(self) -> Any:
        shape = SimpleNamespace(hidden=32, qkv_width=64, attention_width=32, intermediate=48)
        return SimpleNamespace(shape=shape, device=torch.device("cuda", 0), dtype=torch.float16)

    def test_a_gpu_without_fp8(self, weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
        with pytest.raises(ModeUnavailable, match=r"compute capability 8\.9 .* this one has 8\.6: leave precision out"):
            check_fp8("triton", weights)
        check_fp8("reference", weights)  # dequantises

    def test_a_dtype_that_the_product_lacks(self, weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
        monkeypatch.setattr(scaled_mm, "problem", lambda device, dtype: "Only bf16" if dtype.itemsize == 2 else None)
        with pytest.raises(
            InputError, match=r"can't put out float16 here \(Only bf16\): load the model with dtype='bf16'"
        ):
            check_fp8("triton", weights)
        monkeypatch.setattr(scaled_mm, "problem", lambda device, dtype: None)
        check_fp8("triton", weights)
        assert fp8_module.PRECISIONS == (None, "fp8")


@pytest.mark.gpu
class TestOnTheGpu:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize(
        "options",
        [{"attention": "int8"}, {"precision": "fp8"}, {"attention": "int8", "precision": "fp8"}],
        ids=["int8", "fp8", "both"],
    )
    def test_replay_equals_eager_bit_for_bit(self, dtype: torch.dtype, options: dict[str, Any]) -> None:
        self._needs(options)
        model = make_model(hidden=256, intermediate=512, layers=3, heads=4, kv_heads=2, head_dim=128, dtype=dtype)
        model = model.cuda()
        task = make_task(model, [200, 7, 123], reference_frames=[5, 30, 9])  # more than 512 rows
        tokens = []
        for capture in (None, run_eagerly):
            engine = Engine(model, max_rows=1024, capture=capture, **options)
            engine.warmup()
            before, held = engine.runner.graphs.captures, torch.cuda.memory_allocated()
            for _ in range(2):
                engine.manual_seed(3)
                tokens.append(engine.generate_tokens(task, generation_config(num_step=16)))
            assert engine.runner.graphs.captures == before
            assert torch.cuda.memory_allocated() - held < 2**20  # the tokens
        for other in tokens[1:]:
            assert all(torch.equal(a, b) for a, b in zip(tokens[0], other, strict=True))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize(("options", "bar"), [({"attention": "int8"}, 0.02), ({"precision": "fp8"}, 0.08)])
    def test_logits_within_the_bar(self, dtype: torch.dtype, options: dict[str, Any], bar: float) -> None:
        """At the real model's widths, on the kernels' own tiles, in a bucket of 576 rows or more."""
        self._needs(options)
        model = loud(
            hidden=1024, intermediate=3072, layers=4, heads=16, kv_heads=8, head_dim=128, audio_vocab=1025, dtype=dtype
        ).cuda()
        task, config = make_task(model, [140, 120]), generation_config(num_step=4)
        canvases = [torch.randint(0, 1025, (8, n), generator=torch.Generator().manual_seed(n)) for n in (140, 120)]
        logits = []
        for given in ({}, options):
            engine = Engine(model, max_rows=1024, **given)
            logits.append(
                torch.cat([branch.flatten() for pair in engine.logits(task, config, canvases) for branch in pair])
            )
            engine.close()
        exact, got = logits
        error = float((got - exact).norm() / exact.norm())
        assert bar / 30 < error < bar

    @staticmethod
    def _needs(options: dict[str, Any]) -> None:
        if "precision" in options and torch.cuda.get_device_capability() < scaled_mm.MIN_CAPABILITY:
            pytest.skip("no FP8 before compute capability 8.9")
