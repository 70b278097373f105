"""The codec's decoder against upstream's, and against itself where lengths are mixed or windows are cut."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.engine import codec as codec_module
from omnivoice_triton.engine.codec import CodecDecoder
from omnivoice_triton.engine.codec_weights import read_decoder_weights
from omnivoice_triton.engine.finish import Decoded, Finisher
from omnivoice_triton.speech import InputError, UpstreamChanged
from tests.engine.codec_upstream import (
    CODEBOOK_SIZE,
    CODEBOOKS,
    HOP,
    REAL_STRIDES,
    random_codes,
    small_tokenizer,
    upstream_decode,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: more threads only wait for each other, and long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def exact() -> CodecDecoder:
    """In float64: what differs from another way to compute the same by more than 1e-12 computes something else."""
    return CodecDecoder.from_upstream(small_tokenizer(dtype=torch.float64), precision="fp64")


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference, as a part of the peak."""
    assert got.shape == want.shape
    return float((got.double().cpu() - want.double()).abs().max() / want.abs().max())


@pytest.mark.parametrize("frames", [1, 2, 5, 13, 40])
def test_equals_upstream_in_float64(frames: int, exact: CodecDecoder) -> None:
    codes = random_codes(frames)
    got = exact.decode(codes)
    assert len(got) == 1
    want = upstream_decode(small_tokenizer(dtype=torch.float64), codes)
    assert want.shape == (frames * HOP,)
    assert relative(got[0], want) <= 1e-13


@pytest.mark.parametrize("frames", [1, 14])
def test_equals_upstream_with_the_real_strides(frames: int) -> None:
    codes = random_codes(frames)
    for dtype, precision, bound in ((torch.float64, "fp64", 1e-13), (torch.float32, "tf32", 1e-5)):
        tokenizer = small_tokenizer(REAL_STRIDES, dtype)
        decoder = CodecDecoder.from_upstream(tokenizer, precision=precision)
        assert decoder.hop == 960
        assert decoder.context == 12
        assert decoder.weights.context_frames() == (10, 10)
        assert relative(decoder.decode(codes)[0], upstream_decode(tokenizer, codes)) <= bound


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("frames", [1, 7, 33])
def test_equals_upstream_in_float32(frames: int, precision: str) -> None:
    codes = random_codes(frames, seed=1)
    [got] = CodecDecoder.from_upstream(small_tokenizer(), precision=precision).decode(codes)
    assert got.dtype == torch.float32
    assert relative(got, upstream_decode(small_tokenizer(), codes)) <= 1e-5


def test_equals_upstream_on_the_tiny_checkpoint(tmp_path: Path) -> None:
    from transformers import HiggsAudioV2TokenizerModel

    made = make_checkpoint(tmp_path / "tiny", "tiny")
    tokenizer = HiggsAudioV2TokenizerModel.from_pretrained(made / "audio_tokenizer").eval()
    codes = torch.randint(0, 1024, (8, 60), generator=torch.Generator().manual_seed(0))
    want = upstream_decode(tokenizer, codes)
    decoder = CodecDecoder.from_upstream(tokenizer)
    assert relative(decoder.decode(codes)[0], want) <= 1e-5
    assert relative(decoder.decode_windowed(codes, 32), want) <= 1e-5


def test_bfloat16_is_close_and_ends_in_float32() -> None:
    codes = random_codes(12)
    decoder = CodecDecoder.from_upstream(small_tokenizer(), precision="bf16")
    assert decoder.weights.conv_in.weight.dtype == torch.bfloat16
    assert decoder.weights.conv_out.weight.dtype == torch.float32
    [got] = decoder.decode(codes)
    assert got.dtype == torch.float32
    want = upstream_decode(small_tokenizer(), codes)
    error = float((got - want).norm() / want.norm())
    assert (
        1e-4 < error <= 0.05
    )  # 15 Snakes and 14 convolutions that round to 8 bits; below the lower bound nothing was rounded


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_triton_backend_equals_the_reference(precision: str, device: str) -> None:
    tokenizer = copy.deepcopy(small_tokenizer()).to(device)
    codes = [random_codes(frames) for frames in (3, 2)]
    decoder = CodecDecoder.from_upstream(tokenizer, precision=precision, backend="triton")
    decoder.spare_frames = 9  # one call, with lengths
    twin = CodecDecoder.from_upstream(tokenizer, precision=precision, backend="reference")
    for got, want, item in zip(decoder.decode(codes), twin.decode(codes), codes, strict=True):
        assert relative(got, want.cpu()) <= (1e-5 if precision == "fp32" else 0.02)
        truth = upstream_decode(small_tokenizer(dtype=torch.float64), item)
        assert relative(got, truth) <= (1e-5 if precision == "fp32" else 0.1)


def test_the_order_of_a_convolutions_result_does_not_matter(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN gives the result of a single frame channels last; the kernels take rows."""
    codes = random_codes(3).to(device)
    decoder = CodecDecoder.from_upstream(
        copy.deepcopy(small_tokenizer()).to(device), precision="fp32", backend="triton"
    )
    want = decoder.decode(codes)[0]
    conv1d = torch.nn.functional.conv1d

    def channels_last(*arguments: Any, **keywords: Any) -> torch.Tensor:
        return conv1d(*arguments, **keywords).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(codec_module.F, "conv1d", channels_last)
    assert torch.equal(decoder.decode(codes)[0], want)


def test_the_backend_is_chosen_once_and_never_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from omnivoice_triton.kernels import snake

    assert CodecDecoder.from_upstream(small_tokenizer()).backend == "reference"

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel today")

    monkeypatch.setattr(snake, "triton_snake", broken)
    decoder = CodecDecoder.from_upstream(small_tokenizer(), backend="triton")
    with pytest.raises(RuntimeError, match="no kernel today"):
        decoder.decode(random_codes(1))


# --- weights -----------------------------------------------------------------------------------------------------


def test_the_table_equals_the_layers_it_folds() -> None:
    double = small_tokenizer(dtype=torch.float64)
    codes = random_codes(50)
    with torch.no_grad():
        want = double.fc2(double.quantizer.decode(codes[:, None]).transpose(1, 2))[0]  # [T, C]
    rows = codes + torch.arange(CODEBOOKS)[:, None] * CODEBOOK_SIZE
    for tokenizer, dtype, bound in ((double, torch.float64, 1e-14), (small_tokenizer(), torch.float32, 5e-7)):
        weights = read_decoder_weights(tokenizer, dtype=dtype)
        assert weights.table.dtype == dtype
        assert weights.table.shape == (CODEBOOKS * CODEBOOK_SIZE, 12)
        got = weights.table[rows].sum(0) + weights.table_bias
        assert relative(got, want) <= bound


def test_weights_are_shared_where_no_cast_is_needed() -> None:
    tokenizer = small_tokenizer()
    weights = read_decoder_weights(tokenizer)
    assert weights.conv_in.weight.data_ptr() == tokenizer.acoustic_decoder.conv1.weight.data_ptr()
    unit = tokenizer.acoustic_decoder.block[1].res_unit2
    assert weights.blocks[1].units[1].conv1.weight.data_ptr() == unit.conv1.weight.data_ptr()
    assert weights.blocks[1].units[1].conv1.dilation == 3
    assert weights.hop == HOP


def break_name(model: Any) -> None:
    model.acoustic_decoder.block[1].res_unit1.extra = nn.Parameter(torch.zeros(1))


def break_missing(model: Any) -> None:
    del model.fc2.bias
    model.fc2.register_parameter("bias", None)


def break_alpha(model: Any) -> None:
    model.acoustic_decoder.block[0].snake1.alpha = nn.Parameter(torch.ones(1, 1, 1))


def break_weight_norm(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.acoustic_decoder.block[0].res_unit3.conv2)


def break_tanh(model: Any) -> None:
    model.acoustic_decoder.tanh = nn.Tanh()


def break_output_padding(model: Any) -> None:
    model.acoustic_decoder.block[1].conv_t1.output_padding = (0,)


def break_padding(model: Any) -> None:
    model.acoustic_decoder.block[1].res_unit3.conv1.padding = (26,)


def break_groups(model: Any) -> None:
    model.acoustic_decoder.block[0].res_unit1.conv2 = nn.Conv1d(16, 16, 1, groups=2)


def break_quantizers(model: Any) -> None:
    model.quantizer.quantizers[7].project_out = nn.Linear(5, 32)


def break_codebook(model: Any) -> None:
    model.quantizer.quantizers[7].codebook.embed = torch.zeros(9, 6)


def break_hop(model: Any) -> None:
    model.config.acoustic_model_config.downsampling_ratios = [8, 2]


def break_layer(model: Any) -> None:
    model.acoustic_decoder.conv1 = nn.Identity()


def break_channels(model: Any) -> None:
    model.acoustic_decoder.conv2 = nn.Conv1d(8, 2, 7, padding=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_name, "too many.*res_unit1.extra"),
        (break_missing, "no tensor 'fc2.bias'"),
        (break_alpha, "snake1.alpha"),
        (break_weight_norm, "no tensor .*res_unit3.conv2.weight"),
        (break_tanh, "tanh .* is a Tanh"),
        (break_output_padding, "doesn't make 5 samples"),
        (break_padding, "not a plain convolution"),
        (break_groups, "not a plain convolution"),
        (break_quantizers, "project_out"),
        (break_codebook, "differ in size"),
        (break_hop, "40 samples a frame, but its config says 16"),
        (break_layer, "conv1 .* is a Identity"),
        (break_channels, "makes 2 channels"),
    ],
)
def test_another_layout_is_refused(change: Any, message: str) -> None:
    model = copy.deepcopy(small_tokenizer())
    change(model)
    with pytest.raises(UpstreamChanged, match=message):
        read_decoder_weights(model)


# --- lengths and windows -----------------------------------------------------------------------------------------


def test_context_is_what_the_geometry_says(exact: CodecDecoder) -> None:
    """A change of one frame is heard in exactly the frames around it that `context_frames` names."""
    left, right = exact.weights.context_frames()
    assert (left, right) == (10, 10)
    codes = random_codes(60)
    changed = codes.clone()
    changed[:, 30] = (changed[:, 30] + 7) % CODEBOOK_SIZE
    differs = (exact.decode(codes)[0] != exact.decode(changed)[0]).reshape(60, HOP).any(1).nonzero().flatten()
    # A frame reaches as far back as others need it from the right, and the other way round.
    assert differs.min() == 30 - right
    assert differs.max() == 30 + left


@pytest.mark.parametrize("window", [25, 40, 57])
@pytest.mark.parametrize("frames", [20, 25, 41, 57, 58, 99])
def test_windows_equal_the_whole(frames: int, window: int, exact: CodecDecoder) -> None:
    codes = random_codes(frames)
    [whole] = exact.decode(codes)
    assert relative(exact.decode_windowed(codes, window), whole) <= 1e-13


def test_too_little_context_is_heard(exact: CodecDecoder) -> None:
    narrow = CodecDecoder(exact.weights, precision="fp64")
    narrow.context = 8
    codes = random_codes(99)
    assert relative(narrow.decode_windowed(codes, 25), exact.decode(codes)[0]) > 1e-6


def test_windows_in_float32_equal_upstream() -> None:
    codes = random_codes(90)
    decoder = CodecDecoder.from_upstream(small_tokenizer())
    assert relative(decoder.decode_windowed(codes, 48), upstream_decode(small_tokenizer(), codes)) <= 1e-5


@pytest.mark.parametrize("tail_blocks", [0, 1, 3, 9])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_rows_of_the_last_blocks_run_in_groups(
    tail_blocks: int, with_lengths: bool, exact: CodecDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of two rows, and one left over, wherever the rows part."""
    codes = torch.stack([random_codes(20, seed) for seed in range(5)])
    lengths = torch.tensor([20, 3, 20, 0, 11], dtype=torch.int32) if with_lengths else None
    monkeypatch.setattr(codec_module, "TAIL_FRAMES", 20 * 5)
    whole = exact.run(codes, lengths)
    monkeypatch.setattr(codec_module, "TAIL_FRAMES", 40)
    monkeypatch.setattr(codec_module, "TAIL_BLOCKS", tail_blocks)
    sizes: list[int] = []
    finish = CodecDecoder._finish_rows
    monkeypatch.setattr(
        CodecDecoder, "_finish_rows", lambda self, x, *rest: (sizes.append(len(x)), finish(self, x, *rest))[1]
    )
    parted = exact.run(codes, lengths)
    assert sizes == [2, 2, 1]
    for row in range(5):
        end = HOP * (20 if lengths is None else int(lengths[row]))
        torch.testing.assert_close(parted[row, :end], whole[row, :end], rtol=0, atol=1e-13)


def test_mixed_lengths_in_one_call_equal_each_alone(exact: CodecDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [1, 30, 17, 29, 2, 30]
    items = [random_codes(frames, seed) for seed, frames in enumerate(lengths)]
    alone = [exact.decode(item)[0] for item in items]

    together = CodecDecoder(exact.weights, precision="fp64")
    together.spare_frames = 1000
    shapes = record_runs(together, monkeypatch)
    for got, want in zip(together.decode(items), alone, strict=True):
        assert relative(got, want) <= 1e-13
    assert shapes == [(6, 30, True)]

    # The same without the lengths: the padding is heard.
    codes = torch.zeros(6, CODEBOOKS, 30, dtype=torch.int64)
    for index, item in enumerate(items):
        codes[index, :, : item.shape[1]] = item
    unmasked = exact.run(codes)
    assert relative(unmasked[2, : 17 * HOP], alone[2]) > 1e-3


def record_runs(decoder: CodecDecoder, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool]]:
    """(rows, frames, with lengths) of every call from now on."""
    shapes: list[tuple[int, int, bool]] = []
    run = decoder.run

    def recording(codes: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        shapes.append((codes.shape[0], codes.shape[2], lengths is not None))
        return run(codes, lengths)

    monkeypatch.setattr(decoder, "run", recording)
    return shapes


def test_equal_lengths_share_a_call(exact: CodecDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = CodecDecoder(exact.weights, precision="fp64")
    shapes = record_runs(decoder, monkeypatch)
    items = [random_codes(frames, seed) for seed, frames in enumerate([4, 9, 4, 4])]
    for got, item in zip(decoder.decode(items), items, strict=True):
        assert relative(got, exact.decode(item)[0]) <= 1e-13
    assert shapes == [(1, 9, False), (3, 4, False)]  # on a CPU padding costs more than a call


def test_long_items_are_cut(exact: CodecDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [random_codes(70), random_codes(12)]
    want = [exact.decode(item)[0] for item in items]
    monkeypatch.setattr(codec_module, "WIDEST_CALL_FRAMES", 50)
    decoder = CodecDecoder(exact.weights, precision="fp64")
    shapes = record_runs(decoder, monkeypatch)
    for got, truth in zip(decoder.decode(items), want, strict=True):
        assert relative(got, truth) <= 1e-13
    assert shapes == [(1, 50, False), (1, 50, False), (1, 12, False)]


# --- input and flags ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(7, 5, dtype=torch.int64), r"\(8, T\)"),
        (torch.zeros(8, 0, dtype=torch.int64), "at least one frame"),
        (torch.zeros(1, 8, 5, dtype=torch.int64), r"\(8, T\)"),
        (torch.zeros(8, 5), "integers"),
        (torch.full((8, 5), CODEBOOK_SIZE), "0 to 31, but go from [0-9]+ to 32"),
        (torch.full((8, 5), -1), "go from -1"),
    ],
)
def test_bad_codes_are_refused(codes: torch.Tensor, message: str, exact: CodecDecoder) -> None:
    with pytest.raises(InputError, match=message):
        exact.decode(codes)
    with pytest.raises(InputError, match=message):
        exact.decode([random_codes(3), codes])


def test_no_items_make_no_audio(exact: CodecDecoder) -> None:
    assert exact.decode([]) == []


def test_int32_codes_are_taken(exact: CodecDecoder) -> None:
    codes = random_codes(3)
    assert torch.equal(exact.decode(codes.int())[0], exact.decode(codes)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "unknown codec precision 'fp16'"),
        ({"backend": "cuda"}, "unknown codec backend 'cuda'"),
        ({"precision": "fp64", "backend": "triton"}, "reference backend"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CodecDecoder.from_upstream(small_tokenizer(), **options)


@pytest.mark.parametrize("allowed", [True, False])
def test_flags_of_cudnn_are_respected_and_left_alone(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    conv = torch.nn.functional.conv1d

    def watching(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return conv(*args, **kwargs)

    monkeypatch.setattr(codec_module.F, "conv1d", watching)
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = allowed
        for precision, want in (("tf32", allowed), ("fp32", False)):
            seen.clear()
            CodecDecoder.from_upstream(small_tokenizer(), precision=precision).decode(random_codes(2))
            assert len(seen) == 2 + 12
            assert set(seen) == {want}
            assert torch.backends.cudnn.allow_tf32 is allowed
    finally:
        torch.backends.cudnn.allow_tf32 = before


# --- finishing ---------------------------------------------------------------------------------------------------


def upstream_finish(codes: list[torch.Tensor], ref_rms: float | None, options: GenerationOptions) -> np.ndarray:
    """Upstream's own decode and post-processing; one chunk goes in as a tensor, several as a list."""
    from omnivoice.models.omnivoice import OmniVoice

    model = SimpleNamespace(audio_tokenizer=small_tokenizer(), sampling_rate=24_000)
    model._post_process_audio = lambda *args, **kwargs: OmniVoice._post_process_audio(model, *args, **kwargs)
    with torch.no_grad():
        return OmniVoice._decode_and_post_process(model, codes if len(codes) > 1 else codes[0], ref_rms, options)


def test_a_batch_ends_as_upstream_would_end_each() -> None:
    options = GenerationOptions()
    batch = [
        ([random_codes(30)], None, options),
        ([random_codes(20), random_codes(11)], 0.05, options),
        ([random_codes(30, 1)], 0.2, GenerationOptions(postprocess_output=False, pad_duration=0.0)),
        ([random_codes(3)], None, GenerationOptions(fade_duration=0.0)),
    ]
    decoder = CodecDecoder.from_upstream(small_tokenizer())
    waves = iter(decoder.decode([chunk for chunks, _, _ in batch for chunk in chunks]))
    items = [Decoded(tuple(next(waves) for _ in chunks), rms, opts) for chunks, rms, opts in batch]
    for got, (chunks, rms, opts) in zip(Finisher(24_000).finish(items), batch, strict=True):
        want = upstream_finish(chunks, rms, opts)
        assert isinstance(got, np.ndarray)
        assert got.dtype == np.float32
        assert got.shape == want.shape
        # Rounding in the codec may tip a sample over to the next int16 value.
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max() + 1.1 / 32768)


def test_finishing_is_exact_on_equal_samples() -> None:
    """With upstream's own samples nothing is left to differ."""
    chunks = [random_codes(20), random_codes(11)]
    waves = tuple(upstream_decode(small_tokenizer(), codes) for codes in chunks)
    [got] = Finisher(24_000).finish([Decoded(waves, 0.05, GenerationOptions())])
    assert np.array_equal(got, upstream_finish(chunks, 0.05, GenerationOptions()))


def test_a_bad_item_leaves_the_others_alone() -> None:
    options = GenerationOptions()
    good = torch.linspace(-1, 1, 5000)
    broken = torch.full((100,), float("nan"))
    first, error, last = Finisher(24_000).finish(
        [Decoded((good,), None, options), Decoded((broken,), None, options), Decoded((good,), None, options)]
    )
    assert isinstance(error, InputError)
    assert isinstance(first, np.ndarray)
    assert np.array_equal(first, last)
    assert Finisher(24_000).finish([]) == []
    with pytest.raises(InputError, match="at least one chunk"):
        Finisher(24_000).finish([Decoded((), None, options)])


@pytest.mark.gpu
def test_finishing_from_the_gpu_copies_once() -> None:
    options = GenerationOptions()
    waves = [torch.rand(n) * 2 - 1 for n in (5000, 90_000, 1)]
    finisher = Finisher(24_000)
    for _ in range(2):  # the second time the pinned buffer is there already
        got = finisher.finish([Decoded((wave.cuda(),), None, options) for wave in waves])
        want = finisher.finish([Decoded((wave,), None, options) for wave in waves])
        assert all(map(np.array_equal, got, want))
