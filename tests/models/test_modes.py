"""Every mode's plumbing on the tiny model: Triton's interpreter and a stand-in for capture, or a real GPU."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton import MODES, BaseRunner, InputError, ModeUnavailable, accelerate, create_runner
from omnivoice_triton.models import availability
from omnivoice_triton.models.acceleration import Acceleration, unsuited
from omnivoice_triton.models.availability import choose
from omnivoice_triton.models.parking import ENCODER_PARTS
from tests.models.helpers import Standin, load_upstream

SAY: dict[str, Any] = {"text": "Hi there.", "duration": 0.2, "num_step": 2, "postprocess_output": False}


@pytest.fixture(scope="module")
def base_tokens(tiny: Path, device: str) -> tuple[Any, torch.Tensor]:
    model = load_upstream(tiny, device)
    with accelerate(model, "base") as handle:
        return model, tokens(model, handle)


def tokens(model: Any, handle: Acceleration, seed: int = 3) -> torch.Tensor:
    """What the decode loop decides for one short text."""
    from omnivoice import OmniVoiceGenerationConfig

    task = model._preprocess_all(text="Hi there.", duration=0.2)
    with torch.inference_mode(), handle.call(model, seed):
        return torch.stack(model._generate_iterative(task, OmniVoiceGenerationConfig(num_step=2)))


@pytest.mark.parametrize("mode", list(MODES))
def test_mode_decides_as_base_does(mode: str, tiny: Path, device: str, base_tokens: tuple[Any, torch.Tensor]) -> None:
    """fp32: same tokens (INT8 attention may differ in a few), then undo and the very same again."""
    _, want = base_tokens
    model = load_upstream(tiny, device)
    options = {"noise": "torch", "max_rows": 1024} if MODES[mode].engine else {}
    handle = accelerate(model, mode, capture=Standin() if device == "cpu" else None, **options)
    assert handle.mode is MODES[mode]
    got = tokens(model, handle)
    if MODES[mode].int8_qk:
        assert (got == want).float().mean() > 0.8
    else:
        assert torch.equal(got, want)
    if handle.graphs is not None:
        assert handle.graphs.replays == 2
    assert (handle.turbo is not None) == MODES[mode].engine
    if handle.turbo is not None:
        assert handle.turbo.engine.runner.graphs.replays == 2
    handle.undo()
    with accelerate(model, "base") as plain:
        assert torch.equal(tokens(model, plain), want)


@pytest.mark.parametrize("mode", list(MODES))
def test_handle_says_what_it_did(mode: str, model: Any) -> None:
    handle = accelerate(model, mode, capture=Standin())
    shown = repr(handle)
    assert shown.startswith(f"<mode {mode}: ")
    assert ("SwiGLU" in shown) == MODES[mode].triton
    assert ("INT8-QK" in shown) == MODES[mode].int8_qk
    assert ("cuda graph" in shown) == MODES[mode].graph
    assert ("<Engine: " in shown) == MODES[mode].engine
    handle.undo()
    assert not {"forward", "generate", "_generate_iterative"} & set(model.__dict__)
    assert "Triton" not in repr(model)


@pytest.mark.parametrize("mode", ["triton", "triton_sage"])
def test_runner_in_the_interpreter(mode: str, tiny: Path, device: str) -> None:
    with create_runner(mode, device=device, model_id=tiny, dtype="fp32") as runner:
        assert runner.acceleration is not None
        assert runner.acceleration.active
        one = runner.generate(**SAY, seed=1)
        two = runner.generate(**SAY, seed=1)
        assert one.mode == mode
        assert np.array_equal(one.audio, two.audio)


def test_sage_option_of_0_1_0() -> None:
    from omnivoice_triton import TritonRunner

    if torch.cuda.is_available() or availability.interpreter_on():
        assert TritonRunner(enable_sage_attention=True).mode.name == "triton_sage"
        assert create_runner("triton", enable_sage_attention=True).mode.name == "triton_sage"


class TestAuto:
    def test_takes_the_fastest_that_can_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(availability, "check_device", lambda device: "cuda")
        monkeypatch.setattr(availability, "unavailable_reason", lambda mode, device: None)
        best = max(MODES.values(), key=lambda m: m.rank)
        assert choose("auto", "cuda").mode is best

    @pytest.mark.parametrize(
        ("options", "engine"),
        [
            ({"engine_options": {"noise": "torch"}, "triton_options": False}, True),
            ({"engine_options": {}, "triton_options": True}, False),
            ({"engine_options": {}, "triton_options": False, "model": SimpleNamespace(audio_tokenizer=None)}, False),
        ],
    )
    def test_takes_what_suits_the_options(
        self, options: dict[str, Any], engine: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whichever of the two ranks first."""
        monkeypatch.setattr(availability, "check_device", lambda device: "cuda")
        monkeypatch.setattr(availability, "unavailable_reason", lambda mode, device: None)
        for rank in (1, 70):
            monkeypatch.setitem(MODES, "turbo", replace(MODES["turbo"], rank=rank))
            choice = choose("auto", "cuda", partial(unsuited, **options))
            assert choice.mode.engine is engine
            best = max((m for m in MODES.values() if m.engine is engine), key=lambda m: m.rank)
            assert choice.mode == best

    def test_options_that_nothing_here_suits(self) -> None:
        with pytest.raises(ModeUnavailable, match=r"suits the options; mode \w+ .*: name a mode"):
            create_runner("auto", device="cpu", noise="torch")
        with pytest.raises(InputError, match="unknown option 'colour'"):
            BaseRunner("cpu", mode="auto", colour="pink")

    def test_says_why_not_the_faster_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(availability, "check_device", lambda device: "cuda")
        monkeypatch.setattr(
            availability,
            "unavailable_reason",
            lambda mode, device: "it needs more" if mode.triton or mode.engine else None,
        )
        choice = choose("auto", "cuda")
        assert choice.mode.name == "faster"
        assert "can't run here: it needs more" in choice.reason

    def test_on_a_cpu_it_is_base(self) -> None:
        runner = create_runner("auto", device="cpu")
        assert runner.mode.name == "base"
        assert "NVIDIA GPU" in runner.reason

    def test_old_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
        monkeypatch.setattr(availability, "check_device", lambda device: "cuda")
        with pytest.raises(ModeUnavailable, match=r"compute capability is 7\.0, the kernels need 7\.5"):
            choose("hybrid", "cuda")
        with pytest.raises(ModeUnavailable, match=r"compute capability is 7\.0"):
            choose("turbo", "cuda")
        assert choose("auto", "cuda").mode.name == "faster"


def test_memory_is_checked_before_loading(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnivoice_triton import NotEnoughMemory

    runner = create_runner("base", device="cpu", model_id=tiny)
    runner.device = "cuda"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 * 2**20, 8 * 2**30))
    with pytest.raises(NotEnoughMemory, match=r"needs about 0\.3 GiB of GPU memory, 0\.1 of 8\.0 GiB are free"):
        runner.load_model()


def test_turbo_is_asked_for_what_it_sends_to_the_gpu(tiny: Path) -> None:
    """The text embedding stays behind, and without cloning the encoder does."""
    from omnivoice_triton.checkpoint import parameter_bytes
    from omnivoice_triton.models.loading import host_prefixes

    model = load_upstream(tiny)
    everything = parameter_bytes(tiny, "float16")
    embedding = 2 * model.llm.embed_tokens.weight.numel()
    encoder = sum(4 * p.numel() for part in ENCODER_PARTS for p in getattr(model.audio_tokenizer, part).parameters())
    assert embedding > 0 < encoder
    assert parameter_bytes(tiny, "float16", without=host_prefixes(host_embedding=False)) == everything
    left = parameter_bytes(tiny, "float16", without=host_prefixes(reference_encoder=False))
    assert left == {"lm": everything["lm"] - embedding, "codec": everything["codec"] - encoder}


def test_running_out_of_memory_is_one_line(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnivoice_triton import NotEnoughMemory

    with create_runner("base", device="cpu", model_id=tiny) as runner:

        def fail(**_: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …\n…")

        monkeypatch.setattr(runner.model, "generate", fail)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 8 * 2**30))
        with pytest.raises(NotEnoughMemory, match=r"needs more GPU memory than there is \(1\.0 of 8\.0 GiB free\)"):
            runner.generate("Hi.")
