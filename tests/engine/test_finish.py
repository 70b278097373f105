"""Finishing block by block gives the bits of the whole, which are upstream's (test_audio)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.engine import audio, finish, silence
from omnivoice_triton.engine.audio import block_samples, post_process
from omnivoice_triton.engine.fades import cross_fade
from omnivoice_triton.engine.finish import Decoded, Finisher
from omnivoice_triton.speech import InputError
from tests.engine.test_audio import speech_like

RATE = 24_000
BLOCK = 240
DEFAULT = GenerationOptions()


@pytest.fixture
def by_blocks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each group of items was finished; the whole way, for what blocks can't tell, is noted as `looked again`."""
    ways: list[str] = []
    way = Finisher._way
    monkeypatch.setattr(Finisher, "_way", lambda self, item: (ways.append(way(self, item)), ways[-1])[1])
    monkeypatch.setattr(finish, "post_process", lambda *a, **o: (ways.append("looked again"), post_process(*a, **o))[1])
    return ways


def want_of(item: Decoded, rate: int = RATE) -> np.ndarray:
    joined = cross_fade([chunk.cpu().numpy() for chunk in item.chunks], rate)
    return post_process(joined, sample_rate=rate, ref_rms=item.ref_rms, options=item.options)


def check_equal(items: list[Decoded], rate: int = RATE, finisher: Finisher | None = None) -> list[np.ndarray]:
    before = [[chunk.clone() for chunk in item.chunks] for item in items]
    made = (finisher or Finisher(rate)).finish(items)
    for got, item, was in zip(made, items, before, strict=True):
        want = want_of(item, rate)
        assert isinstance(got, np.ndarray), got
        assert got.dtype == np.float32
        assert got.shape == want.shape
        assert np.array_equal(got.view(np.int32), want.view(np.int32))  # bits, so -0.0 counts too
        assert all(map(torch.equal, item.chunks, was)), "the input was changed"
    return [got for got in made if isinstance(got, np.ndarray)]


def aligned(wave: np.ndarray, block: int = BLOCK) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(wave[: len(wave) // block * block], dtype=np.float32))


@pytest.mark.parametrize("rate", [24_000, 16_000, 48_000])
def test_speech_like_batches(rate: int, by_blocks: list[str]) -> None:
    rng = np.random.default_rng(rate)
    block = block_samples(rate)
    assert block is not None
    shorter = 0
    for trial in range(8):
        items = []
        for n in range(3):
            floor = 10 ** (rng.uniform(-53, -47) / 20) if trial % 2 else 0.0
            wave = aligned(speech_like(rng, rate, rng.uniform(0.3, 7.0), floor), block)
            items.append(Decoded((wave,), (None, 0.05, 0.2)[n], DEFAULT))
        made = check_equal(items, rate)
        shorter += sum(len(got) < len(item.chunks[0]) for got, item in zip(made, items, strict=True))
    assert shorter >= 8, "the signals hold too little silence to prove anything"
    assert by_blocks.count("rounded") == 24
    assert by_blocks.count("looked again") <= 4


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    parts=st.lists(
        st.tuples(st.integers(1, 130), st.sampled_from([0, 1, 60, 102, 103, 104, 110, 3000, 40_000])),
        min_size=1,
        max_size=7,
    ),
    ref_rms=st.sampled_from([None, 0.0, 1e-30, 0.05, 0.0999, 0.1, 0.2]),
    options=st.sampled_from([DEFAULT, GenerationOptions(pad_duration=0.0, fade_duration=0.0)]),
    shift=st.integers(0, BLOCK - 1),
    seed=st.integers(0, 9),
)
def test_property_bits_equal_the_whole(
    parts: list[tuple[int, int]], ref_rms: float | None, options: GenerationOptions, shift: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pieces = [
        level / 32768 * (1 if seed % 3 == 0 else rng.standard_normal(n * BLOCK)) * np.ones(n * BLOCK)
        for n, level in parts
    ]
    wave = np.roll(np.concatenate(pieces), shift)  # so that levels change anywhere within a block
    check_equal([Decoded((aligned(wave),), ref_rms, options)])


@pytest.mark.parametrize("value", [102, 103, 104, 105])
@pytest.mark.parametrize("sign", [1, -1])
def test_constant_levels_around_the_threshold(value: int, sign: int) -> None:
    level = np.full(48_000, sign * value / 32768)
    [got] = check_equal([Decoded((aligned(level),), 0.2, DEFAULT)])
    assert bool(got.size) is (value >= 104)
    level[30_000:31_000] = 0.25
    check_equal([Decoded((aligned(level),), 0.2, DEFAULT)])


def test_a_peak_in_a_part_of_a_block_counts() -> None:
    """Two pieces meet in the middle of a silence, at 5 ms of a block, next to the loudest sample of all."""
    seen = 0
    for at in range(0, 10 * BLOCK, 60):
        for gap in (51, 53, 60, 75, 99):
            wave = np.zeros(4 * RATE)
            wave[:2400] = wave[2400 + gap * BLOCK : 4800 + gap * BLOCK] = 0.2
            wave[2400 + gap * BLOCK // 2 - 5 * BLOCK + at] = 0.4  # one sample: its window is silent all the same
            item = Decoded((aligned(wave),), None, GenerationOptions(pad_duration=0.0, fade_duration=0.0))
            [got] = check_equal([item])
            seen += len(got) < len(wave)
    assert seen > 100


def test_extremes() -> None:
    rng = np.random.default_rng(5)
    beyond = rng.standard_normal(60_000) * 2
    square = np.where(np.arange(48_000) // 60 % 2, 1.0, -1.0)
    negative_zeros = -np.abs(rng.standard_normal(24_000)) * 1e-5
    negative_zeros[::500] = 0.5
    for wave in (beyond, square, negative_zeros, np.full(24_000, -0.25), np.full(24_000, 1e-7)):
        for ref_rms in (None, 0.05, 0.2):
            for keep in (True, False):
                options = GenerationOptions(postprocess_output=keep)
                check_equal([Decoded((aligned(wave),), ref_rms, options)])


def test_ways_and_options_share_a_batch(by_blocks: list[str]) -> None:
    rng = np.random.default_rng(2)
    raw = GenerationOptions(postprocess_output=False, pad_duration=0.02)
    items = []
    for n, length in enumerate((24_000, 5000, 9600, 1, 24_240, 480)):
        wave = torch.from_numpy(rng.uniform(-1, 1, length).astype(np.float32))
        items.append(Decoded((wave,), (None, 0.05)[n % 2], raw if n % 3 == 2 else DEFAULT))
    check_equal(items)
    assert by_blocks[:6] == ["rounded", "whole", "raw", "whole", "rounded", "raw"]
    assert by_blocks[6:] == ["looked again"] * 2  # the whole way goes by the same function


@pytest.mark.parametrize("keep", [True, False])
def test_chunks_are_joined_where_they_are(keep: bool, by_blocks: list[str]) -> None:
    rng = np.random.default_rng(7)
    options = GenerationOptions(postprocess_output=keep)
    items = []
    for lengths in ((30, 20), (10, 11, 50, 12), (25,), (10, 10)):
        chunks = tuple(aligned(speech_like(rng, RATE, n / 100)) for n in lengths)
        items.append(Decoded(chunks, (None, 0.05)[len(items) % 2], options))
    check_equal(items)
    assert set(by_blocks) - {"looked again"} == {"rounded" if keep else "raw"}
    by_blocks.clear()
    check_equal([Decoded((torch.rand(480), torch.rand(4800)), None, options)])  # shorter than the fade
    assert by_blocks[0] == "whole"


def test_a_rate_without_whole_blocks_is_finished_whole(by_blocks: list[str]) -> None:
    for rate in (44_100, 22_050, 11_025):
        assert block_samples(rate) is None
        check_equal([Decoded((torch.rand(rate) - 0.5,), None, DEFAULT)], rate)
    assert set(by_blocks) == {"whole", "looked again"}  # the whole way goes by the same function


def test_errors_are_the_items_own() -> None:
    good = torch.linspace(-1, 1, 4800)
    bad = [torch.full((2400,), float("nan")), torch.cat([torch.rand(4799), torch.tensor([float("-inf")])])]
    for broken in bad:
        for options in (DEFAULT, GenerationOptions(postprocess_output=False)):
            made = Finisher(RATE).finish([Decoded((wave,), None, options) for wave in (good, broken, good)])
            assert isinstance(made[1], InputError)
            assert "audio must be finite" in str(made[1])
            assert np.array_equal(made[0], made[2])
    [error] = Finisher(RATE).finish([Decoded((good,), -1.0, DEFAULT)])
    assert isinstance(error, InputError)
    assert "ref_rms" in str(error)


@pytest.mark.parametrize("planted", ["power", "edge", "peak", "gain"])
def test_planted_faults_are_seen(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    items = [Decoded((aligned(speech_like(rng, RATE, 5.0)),), ref_rms, DEFAULT) for ref_rms in (None, 0.05)]
    check_equal(items)
    if planted == "power":
        windows = silence._silent_windows
        monkeypatch.setattr(silence, "_silent_windows", lambda power, block: windows(power + 10**12, block))
    elif planted == "edge":
        pieces = audio.kept_pieces
        monkeypatch.setattr(audio, "kept_pieces", lambda *a: [(s + BLOCK, e) for s, e in pieces(*a) or []])
    elif planted == "peak":
        peak = audio._peak
        monkeypatch.setattr(audio, "_peak", lambda *a: peak(*a) - 1)
    else:
        scale = audio.set_gain_of_whole
        monkeypatch.setattr(
            audio, "set_gain_of_whole", lambda x, out, peak, rms: scale(x, out, peak, rms and rms + 1e-8)
        )
    with pytest.raises(AssertionError):
        check_equal(items)


def best_of(run: Any, repeats: int = 20) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def test_the_hosts_part_is_much_shorter() -> None:
    """What is left on the host once a GPU has measured the blocks, against the whole on the host: 15 s."""
    wave = aligned(speech_like(np.random.default_rng(1), RATE, 15.0, floor=1e-4))
    kept: list[Any] = []
    finisher = Finisher(RATE)
    finisher._finish_measured = lambda measured, wave, item: kept.append(measured)  # type: ignore[assignment,return-value,method-assign,func-returns-value]
    finisher.finish([Decoded((wave,), None, DEFAULT)])
    given_all: dict[str, Any] = {"sample_rate": RATE, "ref_rms": None, "options": DEFAULT}
    whole_s = best_of(lambda: post_process(wave.numpy(), **given_all))
    blocks_s = best_of(lambda: audio.finish_measured(kept[0], **given_all))
    print(f"15 s on the host: whole {whole_s * 1e3:.3f} ms, measured before {blocks_s * 1e3:.3f} ms")
    assert blocks_s < 0.5 * whole_s


@pytest.mark.gpu
def test_from_the_gpu() -> None:
    rng = np.random.default_rng(3)
    finisher = Finisher(RATE)
    for keep in (True, False):
        items = []
        for lengths in ((300,), (588,), (150, 200), (1,)):
            chunks = tuple(aligned(speech_like(rng, RATE, n / 100)).cuda() for n in lengths)
            items.append(Decoded(chunks, (None, 0.05)[len(items) % 2], GenerationOptions(postprocess_output=keep)))
        check_equal(items, finisher=finisher)
