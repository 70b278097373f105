"""Bookkeeping of the codec's graphs with a stand-in that runs the function again; on a GPU the real ones too."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator

import pytest
import torch

from omnivoice_triton.engine.codec import CodecDecoder
from omnivoice_triton.engine.codec_graphs import CodecGraphs, ladder
from omnivoice_triton.speech import InputError
from tests.engine.codec_upstream import HOP, random_codes, small_tokenizer, upstream_decode

SHAPES = [(1, 8), (2, 8), (1, 16), (2, 16), (1, 32)]


class FakeGraph:
    def __init__(self, run: Callable[[], torch.Tensor], output: torch.Tensor) -> None:
        self.run, self.output, self.alive = run, output, True

    def replay(self) -> None:
        assert self.alive, "replayed after reset"
        self.output.copy_(self.run())

    def reset(self) -> None:
        self.alive = False


class FakeCapture:
    """Runs the function again at each replay, writing into the one output buffer as a graph does."""

    def __init__(self, bytes_per_sample: int = 1) -> None:
        self.used_bytes = 0
        self.restarts = 0
        self.graphs: list[FakeGraph] = []
        self._bytes_per_sample = bytes_per_sample

    def __call__(self, run: Callable[[], torch.Tensor]) -> tuple[FakeGraph, torch.Tensor]:
        output = torch.full_like(run(), float("nan"))
        self.used_bytes += output.numel() * self._bytes_per_sample
        self.graphs.append(FakeGraph(run, output))
        return self.graphs[-1], output

    def restart(self) -> None:
        assert not any(graph.alive for graph in self.graphs), "a graph of the pool is still alive"
        self.used_bytes = 0
        self.restarts += 1


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: more threads only wait for each other, and long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def decoder() -> CodecDecoder:
    made = CodecDecoder.from_upstream(small_tokenizer(dtype=torch.float64), precision="fp64")
    made.spare_frames = 16
    return made


def test_replays_equal_the_whole_decode(decoder: CodecDecoder) -> None:
    graphs = CodecGraphs(decoder, capture=FakeCapture())
    graphs.warmup(SHAPES)
    assert graphs.captures == len(SHAPES)
    lengths = [1, 8, 7, 16, 15, 9, 30, 45, 8, 90]
    items = [random_codes(frames, seed) for seed, frames in enumerate(lengths)]
    for got, item in zip(graphs.decode(items), items, strict=True):
        [want] = decoder.decode(item)
        assert got.shape == (item.shape[1] * HOP,)
        assert (got - want).abs().max() <= 1e-12 * want.abs().max()
    assert graphs.captures == len(SHAPES)
    assert graphs.eager_calls == 0
    assert graphs.replays > 0


def test_a_single_tensor_is_one_item(decoder: CodecDecoder) -> None:
    graphs = CodecGraphs(decoder, capture=FakeCapture())
    graphs.warmup([(2, 8)])
    codes = random_codes(5)
    [got] = graphs.decode(codes)
    assert (got - decoder.decode(codes)[0]).abs().max() <= 1e-12 * got.abs().max()


def test_replay_equals_eager_bit_for_bit(decoder: CodecDecoder) -> None:
    graphs = CodecGraphs(decoder, capture=FakeCapture())
    graphs.warmup([(1, 16)])
    codes = random_codes(11)
    padded = torch.zeros(1, 8, 16, dtype=torch.int64)
    padded[0, :, :11] = codes
    want = decoder.run(padded, torch.tensor([11], dtype=torch.int32))[0, : 11 * HOP]
    for _ in range(2):
        assert torch.equal(graphs.decode(codes)[0], want)
        graphs.decode(random_codes(16))  # leaves other codes behind in the buffer


def test_no_capture_after_warmup(decoder: CodecDecoder) -> None:
    graphs = CodecGraphs(decoder, capture=FakeCapture())
    graphs.warmup([(1, 8), (2, 8), (1, 26)])
    before = graphs.captures, graphs.used_bytes, set(graphs.shapes)
    order = random.Random(0)
    for _ in range(12):
        graphs.decode([random_codes(order.randint(1, 40)) for _ in range(order.randint(1, 3))])
    assert (graphs.captures, graphs.used_bytes, set(graphs.shapes)) == before
    assert graphs.eager_calls == 0


def test_what_no_shape_serves_runs_eagerly(decoder: CodecDecoder) -> None:
    graphs = CodecGraphs(decoder, capture=FakeCapture())
    items = [random_codes(5), random_codes(20)]
    for shapes, replays in (([], 0), ([(1, 8)], 1)):
        if shapes:
            graphs.warmup(shapes)
        for got, item in zip(graphs.decode(items), items, strict=True):
            assert (got - decoder.decode(item)[0]).abs().max() <= 1e-12 * got.abs().max()
        assert graphs.replays == replays
        assert graphs.captures == len(shapes)
    assert graphs.eager_calls == 2


def test_captures_on_demand_only_when_allowed(decoder: CodecDecoder) -> None:
    graphs = CodecGraphs(decoder, capture=FakeCapture())
    graphs.decode(random_codes(5))
    assert graphs.captures == 0
    [got] = graphs.decode(random_codes(5), allow_capture=True)
    assert graphs.shapes == ((1, 32),)
    assert (got - decoder.decode(random_codes(5))[0]).abs().max() <= 1e-12 * got.abs().max()
    graphs.decode(random_codes(9), allow_capture=True)
    assert graphs.captures == 1


def test_the_least_recently_used_goes_first(decoder: CodecDecoder) -> None:
    capture = FakeCapture()
    graphs = CodecGraphs(decoder, capture=capture, max_graphs=2)
    graphs.warmup([(1, 16), (1, 32)])
    assert graphs.shapes == ((1, 32), (1, 16))
    graphs.decode(random_codes(30))
    assert graphs.shapes == ((1, 16), (1, 32))
    graphs.decode(random_codes(40), allow_capture=True)
    assert graphs.shapes == ((1, 32), (1, 64))
    assert sum(graph.alive for graph in capture.graphs) == 2


def test_the_budget_is_kept(decoder: CodecDecoder) -> None:
    # 40 frames are 1,600 samples: 37.5 MB of a budget of 40, which leaves too little for another 32 frames.
    capture = FakeCapture(bytes_per_sample=24 * 1024)
    graphs = CodecGraphs(decoder, capture=capture, budget_mb=40)
    graphs.warmup([(1, 40)])
    assert graphs.used_bytes == 37.5 * 2**20
    [got] = graphs.decode(random_codes(10), allow_capture=True)
    assert (got - decoder.decode(random_codes(10))[0]).abs().max() <= 1e-12 * got.abs().max()
    assert graphs.shapes == ((1, 32),)
    assert graphs.used_bytes == 30 * 2**20
    assert capture.restarts == 1
    assert sum(graph.alive for graph in capture.graphs) == 1


def test_what_exceeds_the_budget_is_refused(decoder: CodecDecoder) -> None:
    capture = FakeCapture(bytes_per_sample=24 * 1024)
    graphs = CodecGraphs(decoder, capture=capture, budget_mb=20)
    with pytest.raises(InputError, match="1 x 32 frames needs 30 MB, over the budget of 20 MB"):
        graphs.warmup([(1, 32)])
    assert graphs.shapes == ()
    assert not any(graph.alive for graph in capture.graphs)
    graphs = CodecGraphs(decoder, capture=FakeCapture(bytes_per_sample=24 * 1024), budget_mb=32)
    with pytest.raises(InputError, match="don't fit 32 MB"):
        graphs.warmup([(1, 32), (1, 16)])


@pytest.mark.parametrize("shape", [(0, 8), (1, 0)])
def test_bad_shapes_are_refused(shape: tuple[int, int], decoder: CodecDecoder) -> None:
    with pytest.raises(InputError, match="at least one row"):
        CodecGraphs(decoder, capture=FakeCapture()).warmup([shape])


def test_bad_settings_are_refused(decoder: CodecDecoder) -> None:
    with pytest.raises(InputError, match="CUDA device"):
        CodecGraphs(decoder)
    with pytest.raises(InputError, match="budget"):
        CodecGraphs(decoder, capture=FakeCapture(), budget_mb=0)
    with pytest.raises(InputError, match="at most 1"):
        CodecGraphs(decoder, capture=FakeCapture(), max_graphs=1).warmup(SHAPES)
    graphs = CodecGraphs(decoder, capture=FakeCapture())
    with pytest.raises(InputError, match="must lie in"):
        graphs.decode(random_codes(3) + 1000)


def test_clear_gives_everything_back(decoder: CodecDecoder) -> None:
    capture = FakeCapture()
    graphs = CodecGraphs(decoder, capture=capture)
    graphs.warmup([(1, 8)])
    assert "1 shapes" in repr(graphs)
    graphs.clear()
    assert graphs.shapes == ()
    assert graphs.used_bytes == 0
    assert not capture.graphs[0].alive


def test_the_ladder_serves_every_length() -> None:
    shapes = ladder()
    assert len(set(shapes)) == len(shapes) <= 20
    widths = sorted({frames for _, frames in shapes})
    assert widths == list(range(32, 161, 32))
    assert {(1, width) for width in widths} <= set(shapes)
    assert max(rows * frames for rows, frames in shapes) == 640
    assert all(rows == 1 or rows * frames >= 128 for rows, frames in shapes)


@pytest.mark.gpu
def test_cuda_graphs_equal_eager_and_upstream() -> None:
    tokenizer = copy.deepcopy(small_tokenizer()).cuda()
    for precision in ("fp32", "tf32", "bf16"):
        decoder = CodecDecoder.from_upstream(tokenizer, precision=precision)
        graphs = CodecGraphs(decoder)
        graphs.warmup()
        captures, used = graphs.captures, graphs.used_bytes
        lengths = [1, 5, 16, 31, 100, 100, 256, 300, 700]
        items = [random_codes(frames, seed) for seed, frames in enumerate(lengths)]
        first, second = graphs.decode(items), graphs.decode(items)
        assert all(map(torch.equal, first, second))
        bound = {"fp32": 1e-5, "tf32": 0.02, "bf16": 0.2}[precision]
        for got, item in zip(first, items, strict=True):
            want = upstream_decode(small_tokenizer(), item)
            assert (got.cpu() - want).abs().max() <= bound * want.abs().max()
        for shape in ((1, 64), (4, 64), (4, 160)):
            codes = torch.stack([random_codes(shape[1], seed) for seed in range(shape[0])]).cuda()
            frames = torch.full((shape[0],), shape[1], dtype=torch.int32, device="cuda")
            eager = decoder.run(codes, frames)
            replayed = graphs.decode(list(codes))
            assert torch.equal(torch.stack(replayed), eager)
        assert (graphs.captures, graphs.used_bytes) == (captures, used)
        graphs.clear()
