"""Other ways to run OmniVoice, as `bench peers` drives them: each speaks by `generate(seed, **keywords)`.

Keywords are those of `BaseRunner.generate`; the clock is around upstream's generate(), the device synchronised on both
sides. A path that isn't there raises `NotHere` with the reason.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.commands import in_words
from omnivoice_triton.speech import InputError, Speech

FLASHINFER = "omnivoice.models.omnivoice_flashinfer"
"""Where upstream keeps its FlashInfer path, and its `apply_flashinfer` (k2-fsa/OmniVoice, pull request 239)."""
PATIENCE_S = 300.0
RATE_HZ = 24_000


class NotHere(InputError):
    """That path can't run here; the message says what is missing."""


class Upstream:
    """Upstream's package as it is, or with one change to the loaded model."""

    def __init__(
        self, name: str, path: Path, dtype: str, change: Callable[[Any], None] | None = None, device: str = "cuda"
    ) -> None:
        from omnivoice import OmniVoice

        from omnivoice_triton.models.availability import resolve_dtype

        self.name, self.device = name, device
        self.model = OmniVoice.from_pretrained(str(path), device_map=device, dtype=resolve_dtype(dtype, device)).eval()
        if change is not None:
            change(self.model)

    def generate(self, seed: int, voice: Any = None, **keywords: Any) -> list[Speech]:
        """As upstream's generate(), noise from the global generator.

        Raises:
            NotHere: it failed; of a path that isn't ours that is an answer, not a crash.
        """
        import torch

        if voice is not None:
            keywords["voice_clone_prompt"] = voice
        torch.manual_seed(seed)
        try:
            self._wait()
            began = time.perf_counter()
            audios = self.model.generate(**keywords)
            self._wait()
        except Exception as error:
            raise NotHere(in_words(error)) from error
        seconds = time.perf_counter() - began
        return [speech_of(len(audio), self.model.sampling_rate, seconds, seed, self.name) for audio in audios]

    def close(self) -> None:
        """Let go of the model."""
        self.model = None

    def _wait(self) -> None:
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize()


def speech_of(samples: int, rate_hz: int, seconds: float, seed: int, name: str) -> Speech:
    """A result of which only time and length count."""
    return Speech(np.zeros(samples, np.float32), rate_hz, seconds, seed, name)


def compile_llm(model: Any, mode: str | None = None) -> None:
    """torch.compile of the backbone's forward, each shape by itself, as often as there are shapes.

    Args:
        model: upstream's.
        mode: of torch.compile; None is its default. `max-autotune` also times kernels and captures CUDA graphs.
    """
    import torch

    config: Any = importlib.import_module("torch._dynamo.config")
    for limit in ("recompile_limit", "cache_size_limit"):  # else it falls back to eager after eight shapes, unseen
        if hasattr(config, limit):
            setattr(config, limit, 256)
    model.llm.forward = torch.compile(model.llm.forward, dynamic=False, mode=mode)


def flashinfer_change(dtype: str, graph: bool) -> Callable[[Any], None]:
    """What turns a model into upstream's FlashInfer path.

    Raises:
        NotHere: the installed omnivoice has none, or flashinfer is missing, or the dtype isn't its own.
    """
    version = importlib.metadata.version("omnivoice")
    try:
        there = importlib.util.find_spec(FLASHINFER) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise NotHere(f"omnivoice {version} has no {FLASHINFER}: newer ones do")
    if importlib.util.find_spec("flashinfer") is None:
        raise NotHere("flashinfer is not installed (pip install flashinfer-python)")
    if dtype != "fp16":
        raise NotHere(f"it computes in fp16 only, not in {dtype}")
    apply = getattr(importlib.import_module(FLASHINFER), "apply_flashinfer", None)
    if apply is None:
        raise NotHere(f"{FLASHINFER} of omnivoice {version} has no apply_flashinfer")

    def change(model: Any) -> None:
        apply(model, enable_cuda_graph=graph)

    return change


class OldPackage:
    """Another omnivoice_triton, such as 0.1.0, in a process of its own: two of that name can't be in one."""

    def __init__(self, folder: Path, path: Path, dtype: str, mode: str) -> None:
        if not (folder / "omnivoice_triton" / "__init__.py").is_file():
            raise NotHere(f"{folder.name} holds no omnivoice_triton: pip install --no-deps --target DIR, then give DIR")
        child = Path(__file__).with_name("peer_child.py")
        command = [sys.executable, "-u", str(child), str(folder.resolve()), str(path), dtype, mode]
        self.name = f"omnivoice-triton {mode}"
        self._voices: dict[int, tuple[Any, str]] = {}
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=dict(os.environ)
        )
        try:
            told = self._answer()
        except NotHere:
            self.close()
            raise
        self.version, self.rate_hz = told["version"], told["rate"]

    def generate(self, seed: int, voice: Any = None, **keywords: Any) -> list[Speech]:
        """As the other paths'.

        Raises:
            NotHere: it failed, or its process ended.
        """
        if voice is not None:
            keywords["voice_file"] = self._saved(voice)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"seed": seed, "keywords": keywords}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise NotHere("its process has ended") from error
        told = self._answer()
        return [speech_of(n, self.rate_hz, told["seconds"], seed, self.name) for n in told["samples"]]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # it has gone before us
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def _saved(self, voice: Any) -> str:
        if id(voice) not in self._voices:
            target = str(Path(self._folder.name) / f"voice{len(self._voices)}.pt")
            voice.save(target)
            self._voices[id(voice)] = voice, target  # the voice is held, so that its id stays its own
        return self._voices[id(voice)][1]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise NotHere("its process ended without an answer")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise NotHere(" ".join(str(told["error"]).split())[:300])
        return told
