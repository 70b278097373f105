"""Mode turbo with the options that give exactness up: INT8-QK attention and FP8 layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton import ModeUnavailable, accelerate, create_runner
from omnivoice_triton.config import ENGINE_OPTIONS
from omnivoice_triton.engine.fp8 import Fp8Layers
from omnivoice_triton.kernels import int8_reference
from omnivoice_triton.models.availability import choose
from omnivoice_triton.models.turbo_install import check_engine_values
from tests.models.helpers import canvas, load_upstream

SMALL: dict[str, Any] = {"max_rows": 1024, "max_items": 8}
TEXT = "Hello, world."
LONG: dict[str, Any] = {"duration": 10.4, "num_step": 2, "pad_duration": 0.0}  # 260 frames, twice: more than 512 rows
OPTIONS: dict[str, dict[str, Any]] = {
    "int8": {"attention": "int8"},
    "fp8": {"precision": "fp8"},
    "both": {"attention": "int8", "precision": "fp8"},
}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the twins of the lossy kernels were called."""
    counts = {"int8": 0, "fp8": 0}
    run, attend = Fp8Layers.run, int8_reference.packed_int8_attention

    def counted_run(*args: Any) -> None:
        counts["fp8"] += 1
        run(*args)

    def counted_attend(*args: Any, **kwargs: Any) -> None:
        counts["int8"] += 1
        attend(*args, **kwargs)

    monkeypatch.setattr(Fp8Layers, "run", counted_run)
    monkeypatch.setattr(int8_reference, "packed_int8_attention", counted_attend)
    return counts


@pytest.mark.parametrize("name", OPTIONS)
def test_a_runner_speaks_with_it(tiny: Path, ran: dict[str, int], name: str) -> None:
    """It runs, twice alike, and the option is what ran; the sound is of the length that was asked for."""
    with create_runner("turbo", device="cpu", model_id=tiny, **SMALL, **OPTIONS[name]) as runner:
        first, again = (runner.generate(TEXT, seed=3, postprocess_output=False, **LONG) for _ in range(2))
    assert np.array_equal(first.audio, again.audio)
    assert np.isfinite(first.audio).all()
    assert first.audio_s == pytest.approx(10.4, abs=0.05)
    assert {what for what, count in ran.items() if count} == ({"int8", "fp8"} if name == "both" else {name})


def test_few_rows_are_not_for_fp8(tiny: Path, ran: dict[str, int]) -> None:
    """Below 512 packed rows precision='fp8' is the model's dtype, bit for bit; a batch crosses the line."""
    sounds = []
    for options in ({}, OPTIONS["fp8"]):
        with create_runner("turbo", device="cpu", model_id=tiny, **SMALL, **options) as runner:
            sounds.append(runner.generate(TEXT, seed=3, duration=1.0, num_step=2).audio)
            assert not ran["fp8"]
            if options:
                runner.generate([TEXT] * 8, seed=3, duration=1.4, num_step=2)
                assert ran["fp8"] == 2  # a step each
    assert np.array_equal(*sounds)


@pytest.mark.parametrize("name", OPTIONS)
def test_undo_is_exact(tiny: Path, name: str) -> None:
    model = load_upstream(tiny)
    inputs, attributes = canvas(model), dict(model.__dict__)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.inference_mode():
        before = model(**inputs).logits
    with accelerate(model, "turbo", **SMALL, **OPTIONS[name]) as handle:
        assert handle.turbo is not None
        assert ("FP8 from 512 rows" in repr(handle.turbo)) == (name != "int8")
        with torch.inference_mode():
            assert torch.equal(model(**inputs).logits, before)  # upstream's forward is no part of it
    assert model.__dict__ == attributes
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())


def test_a_gpu_without_fp8_leaves_the_model_as_it_was(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_upstream(tiny)
    attributes = dict(model.__dict__)

    def refuse(backend: str, weights: Any) -> None:
        raise ModeUnavailable("no FP8")

    monkeypatch.setattr("omnivoice_triton.engine.engine.check_fp8", refuse)
    with pytest.raises(ModeUnavailable, match="no FP8"):
        accelerate(model, "turbo", precision="fp8", **SMALL)
    assert model.__dict__ == attributes
    attention = model.llm.layers[0].self_attn
    q, k = (x.weight.untyped_storage().data_ptr() for x in (attention.q_proj, attention.k_proj))
    assert q != k


def test_options_are_checked_and_known() -> None:
    assert {"attention", "precision"} <= set(ENGINE_OPTIONS)
    check_engine_values({"attention": "exact", "precision": None})
    check_engine_values({"attention": "int8", "precision": "fp8"})
    assert choose("turbo", "cpu").mode.name == "turbo"


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIONS)
def test_speaks_on_the_gpu(tiny: Path, name: str) -> None:
    if name != "int8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no FP8 before compute capability 8.9")
    with create_runner("turbo", model_id=tiny, **OPTIONS[name]) as runner:
        first, again = (runner.generate([TEXT] * 4, seed=3, duration=5.0, num_step=4) for _ in range(2))
        for a, b in zip(first, again, strict=True):
            assert np.array_equal(a.audio, b.audio)
            assert np.isfinite(a.audio).all()
