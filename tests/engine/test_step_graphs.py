"""Bookkeeping of captured steps, with a stand-in for capture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.layout import Bucket, BucketGrid
from omnivoice_triton.engine.step_graphs import StepGraphs, run_eagerly
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.kernels.tiles import GemmTile, VarlenTile

from .tiny import generation_config, make_model, make_task

BUCKETS = BucketGrid(max_rows=256, max_items=4).buckets


class Recorder:
    """A capture that notes what it captured and replayed."""

    def __init__(self) -> None:
        self.captured: list[Callable[[], None]] = []
        self.rehearsals: list[Callable[[], None] | None] = []
        self.replayed: list[int] = []

    def __call__(self, run: Callable[[], None], rehearse: Callable[[], None] | None = None, /) -> Any:
        number = len(self.captured)
        self.rehearsals.append(rehearse)
        self.captured.append(run)
        recorder = self

        class Graph:
            def replay(self) -> None:
                recorder.replayed.append(number)
                run()

        return Graph()


def test_largest_first_and_each_once() -> None:
    ran: list[Bucket] = []
    recorder = Recorder()
    graphs = StepGraphs(ran.append, BUCKETS, recorder)
    assert not graphs.ready
    graphs.warmup()
    graphs.warmup()
    assert graphs.ready
    assert graphs.captures == len(BUCKETS) == 4
    for run in recorder.captured:
        run()
    assert [b.rows for b in ran] == [256, 192, 128, 64]
    graphs.replay(BUCKETS[1])
    assert ran[-1] is BUCKETS[1]
    assert graphs.replays == 1


def test_nothing_is_captured_inside_a_request() -> None:
    graphs = StepGraphs(lambda bucket: None, BUCKETS, run_eagerly)
    with pytest.raises(RuntimeError, match=r"call warmup\(\) first"):
        graphs.replay(BUCKETS[0])


def test_lengths_in_any_order_cause_no_capture_and_keep_every_buffer() -> None:
    """Sixty requests of different lengths after warm-up: same graphs, same addresses."""
    recorder = Recorder()
    engine = Engine(make_model(layers=1), max_rows=256, max_items=4, capture=recorder)
    engine.warmup()
    captured = len(recorder.captured)
    state, workspace = engine.runner.state, engine.runner.backbone.workspace
    addresses = [t.data_ptr() for t in (state.canvas, state.prompt, state.slots, workspace._arena)]
    views = [engine.runner._flat[b].data_ptr() for b in engine.runner.grid.buckets]
    config = generation_config(num_step=2)
    for length in torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist():
        engine.generate_tokens(make_task(make_model_once(engine), [1 + length]), config)
    assert len(recorder.captured) == captured == engine.runner.graphs.captures
    assert engine.runner.graphs.replays == 2 * 60
    assert len(set(recorder.replayed)) > 1
    assert addresses == [t.data_ptr() for t in (state.canvas, state.prompt, state.slots, workspace._arena)]
    assert views == [engine.runner._flat[b].data_ptr() for b in engine.runner.grid.buckets]
    assert state.free == (256, 256, 4)


def make_model_once(engine: Engine) -> Any:
    """Only its config is read by make_task."""
    from types import SimpleNamespace

    shape = engine.shape
    return SimpleNamespace(
        config=SimpleNamespace(num_audio_codebook=shape.codebooks, audio_vocab_size=shape.audio_vocab)
    )


def test_an_engine_that_was_not_warmed_up_captures_before_its_first_step() -> None:
    recorder = Recorder()
    model = make_model(layers=1)
    engine = Engine(model, max_rows=128, max_items=2, capture=recorder)
    assert not recorder.captured
    engine.generate_tokens(make_task(model, [3]), generation_config(num_step=1))
    assert engine.runner.graphs.ready
    assert len(recorder.captured) == 2


def test_only_the_first_capture_is_preceded_by_a_whole_step() -> None:
    ran: list[tuple[str, int]] = []
    recorder = Recorder()
    graphs = StepGraphs(
        lambda b: ran.append(("run", b.rows)), BUCKETS, recorder, lambda b: ran.append(("rehearse", b.rows))
    )
    graphs.warmup()
    assert recorder.rehearsals[0] is None
    for rehearse in recorder.rehearsals[1:]:
        assert rehearse is not None
        rehearse()
    assert ran == [("rehearse", 192), ("rehearse", 128), ("rehearse", 64)]


@pytest.mark.parametrize("fused", [(), ("o", "down"), ("qkv", "gate_up"), ("o",)])
def test_a_rehearsal_launches_every_kernel_of_a_step(fused: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and by every argument that chooses a variant: tiles, partial sums, picked rows."""
    splits = {"o": 2, "down": 2, "qkv": 1, "gate_up": 1}
    tiles = Tiles(
        VarlenTile(16, 16, 4, 1), gemm={name: ((256, GemmTile(16, 16, 16, splits[name], 4, 1)),) for name in fused}
    )
    engine = Engine(make_model(layers=4), max_rows=256, max_items=4, tiles=tiles, capture=run_eagerly)
    runner, launched = engine.runner, list[tuple[Any, ...]]()

    def noted(name: str, function: Any) -> Any:
        def run(*arguments: Any, **keywords: Any) -> Any:
            kinds = [(a.dim(), a.dtype) if isinstance(a, torch.Tensor) else a for a in arguments]
            extra = {k: v if not isinstance(v, torch.Tensor) else v.shape for k, v in keywords.items()}
            launched.append((name, str(kinds), str(sorted(extra.items()))))
            return function(*arguments, **keywords)

        return run

    ops = runner.backbone.ops
    wrapped = {f.name: noted(f.name, getattr(ops, f.name)) for f in fields(ops) if f.name != "name"}
    runner.backbone.ops = replace(ops, **wrapped)
    monkeypatch.setattr(torch, "mm", noted("mm", torch.mm))
    for bucket in runner.grid.buckets:
        launched.clear()
        runner.launches.enqueue(bucket)
        whole = list(launched)
        launched.clear()
        runner.launches.rehearse(bucket)
        assert set(launched) == set(whole)
        assert len(launched) < len(whole)
    assert len(runner.backbone.weights.layers) == engine.shape.layers == 4
