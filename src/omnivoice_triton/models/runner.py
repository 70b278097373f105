"""The runner: one class for every mode, one generate for every voice."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from omnivoice_triton.config import AUTO, DEFAULT_GRAPH_BUDGET_MB, HUB_MODEL_ID, Mode
from omnivoice_triton.models.availability import choose, resolve_dtype
from omnivoice_triton.models.gpu_memory import check_memory, out_of_memory, peak_bytes
from omnivoice_triton.models.loading import host_prefixes, import_upstream, load_for_engine, load_upstream
from omnivoice_triton.models.progress import Progress
from omnivoice_triton.models.request import Request, build_request
from omnivoice_triton.models.seeding import resolve_seed
from omnivoice_triton.models.voices import SavedVoices
from omnivoice_triton.speech import InputError, NotLoaded, Speech

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from omnivoice_triton.models.acceleration import Acceleration

logger = logging.getLogger(__name__)


class BaseRunner:
    """OmniVoice in one mode. Subclasses differ in `default_mode` only.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        model_id: hub id or local directory.
        dtype: `fp16`, `bf16`, `fp32` or a torch dtype; `auto` is fp16 on a GPU and fp32 on a CPU.
        mode: a name from `MODES` or `auto`; the class's own by default.
        patch_range: half-open range of layers that get Triton kernels; None is all.
        graph_budget_mb: what the CUDA graphs may hold together; of mode turbo, those of the codec.
        **engine_options: for mode turbo: `noise` (`philox`, or `torch` for upstream's draws), `max_rows` and
            `max_items` that may run together, `codec_precision`, and `reference_encoder` (False keeps the part that
            encodes recordings, 0.7 GB, off the GPU: only saved voices can be cloned then) and `host_embedding` (here
            True by default, which keeps 0.3 GB out of what torch has allocated), `tiles` (a file that `omnivoice-triton
            tune` has written). Not exact: `attention="int8"` and,
            for large batches, `precision="fp8"`.

    Usable as a context manager (loads on entry, unloads on exit) and from several threads (calls take turns).
    """

    default_mode: ClassVar[str] = "base"

    def __init__(
        self,
        device: str = AUTO,
        model_id: str | Path = HUB_MODEL_ID,
        dtype: str | torch.dtype = AUTO,
        *,
        mode: str | None = None,
        patch_range: tuple[int, int] | None = None,
        graph_budget_mb: int = DEFAULT_GRAPH_BUDGET_MB,
        **engine_options: Any,
    ) -> None:
        from omnivoice_triton.models.acceleration import check_common, check_options, unsuited

        suits = partial(unsuited, engine_options=engine_options, triton_options=patch_range is not None)
        choice = choose(mode if mode is not None else self.default_mode, device, suits)
        self.mode: Mode = choice.mode
        self.reason = choice.reason
        self.device = choice.device
        self.model_id = model_id
        self.dtype = resolve_dtype(dtype, self.device)
        self.patch_range = patch_range
        self.graph_budget_mb = graph_budget_mb
        check_common(self.mode, patch_range, graph_budget_mb)
        check_options(self.mode, engine_options, triton_options=patch_range is not None)
        self.engine_options = engine_options
        self._model: Any = None
        self._acceleration: Acceleration | None = None
        self._lock = threading.RLock()
        self._saved_voices = SavedVoices(self.device)

    def __repr__(self) -> str:
        """Mode, device, dtype, and whether it is loaded."""
        dtype = str(self.dtype).removeprefix("torch.")
        state = "loaded" if self._model is not None else "not loaded"
        return f"{type(self).__name__}(mode={self.mode.name!r}, device={self.device!r}, dtype={dtype}, {state})"

    def __enter__(self) -> Self:
        """Load the model."""
        self.load_model()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Unload it."""
        self.unload_model()

    @property
    def model(self) -> Any:
        """The upstream OmniVoice instance, or None before `load_model()`."""
        return self._model

    @property
    def acceleration(self) -> Acceleration | None:
        """The handle of what this mode patched."""
        return self._acceleration

    def load_model(self) -> None:
        """Fetch the model if need be, load it onto the device and put the mode in place; again does nothing.

        Raises:
            CheckpointError, DownloadError: the model can't be found or is damaged.
            NotEnoughMemory: the GPU has less free memory than the weights need.
        """
        import_upstream(self.device)
        import torch

        from omnivoice_triton.checkpoint import resolve_model
        from omnivoice_triton.models.acceleration import accelerate

        with self._lock:
            if self._model is not None:
                return
            path = resolve_model(self.model_id)
            options = self.engine_options
            load: Callable[..., Any] = load_upstream
            stays: tuple[str, ...] = ()
            if self.mode.engine:
                # Nobody else runs this model's forward, which would have to wait for the host.
                options = {"host_embedding": True, **options}
                parts = {name: options[name] for name in ("reference_encoder", "host_embedding") if name in options}
                load, stays = partial(load_for_engine, **parts), host_prefixes(**parts)
            check_memory(path, self.device, self.dtype, stays)
            try:
                model = load(path, self.device, self.dtype)
                self._acceleration = accelerate(
                    model,
                    self.mode.name,
                    patch_range=self.patch_range,
                    graph_budget_mb=self.graph_budget_mb,
                    **options,
                )
            except torch.OutOfMemoryError as error:
                raise out_of_memory("loading the model", self.device) from error
            self._model = model
            logger.info("%r: %r", self, self._acceleration)

    def warmup(self, lengths: Iterable[int] | None = None, batch_sizes: Iterable[int] = (1,)) -> None:
        """Compile kernels and capture graphs ahead of the first request.

        Args:
            lengths: sequence lengths (prompt tokens and reference frames and 25 target frames a second) to capture
                graphs for; None is one short utterance. Mode turbo captures graphs for all lengths.
            batch_sizes: numbers of texts per call to capture for.
        """
        with self._lock:
            acceleration = self._loaded()
            if acceleration.turbo is not None:
                acceleration.turbo.warmup()
            graphs = acceleration.graphs
            if graphs is not None and lengths is not None:
                graphs.warmup(lengths, tuple(batch_sizes))
            self.generate("Warm-up.", duration=1.0, num_step=2, seed=0)

    def generate(
        self,
        text: str | Sequence[str],
        language: str | Sequence[str | None] | None = None,
        *,
        instruct: str | Sequence[str | None] | None = None,
        ref_audio: str | Path | tuple[Any, int] | None = None,
        ref_text: str | None = None,
        voice: Any = None,
        seed: int | None = None,
        duration: float | Sequence[float | None] | None = None,
        speed: float | Sequence[float | None] | None = None,
        normalize_text: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> Any:
        """Say `text`: in a voice of the model's choice, a designed one (`instruct`) or a cloned one.

        Args:
            text: one text or a list; a list is one batch and gives a list of results.
            language: name or code, such as `English` or `en`; None lets the model tell.
            instruct: voice design, such as `female, young adult, high pitch`.
            ref_audio: reference recording (path, or samples and rate in Hz) to clone, with its transcript `ref_text`.
            voice: instead of these, a prompt from `create_voice()` or the path of a saved one.
            seed: same seed, same input, same bits; None draws one and reports it in the result. In mode turbo the
                first text of a list gets the noise that it gets alone.
            duration: seconds of speech to make, instead of the estimate. Of a text that upstream cuts into chunks
                (above 30 s) each chunk's share is upstream's, and the whole can come out longer.
            speed: factor on the estimated pace; above 1 is faster.
            normalize_text: spell out numbers and dates first (needs `omnivoice[tn]`).
            progress: called after each decoding step.
            **options: every field of upstream's `OmniVoiceGenerationConfig`, such as `num_step=16`.

        Returns:
            A `Speech`, or a list of them if `text` is a list.

        Raises:
            InputError: something in the request can't be used; the message says what to change.
            NotEnoughMemory: the GPU ran out of memory.
        """
        if ref_audio is not None and voice is not None:
            raise InputError("ref_audio and voice were both given: choose one")
        if ref_text and ref_audio is None:
            raise InputError("ref_text was given without ref_audio: give the recording that it transcribes")
        if ref_audio is not None and instruct is not None:
            raise InputError("a reference voice and an instruction were both given: choose cloning or design")
        seed = resolve_seed(seed)
        with self._lock:
            self._loaded()
            request = build_request(
                text,
                language=language,
                instruct=instruct,
                voice=self._voices(voice),
                duration=duration,
                speed=speed,
                normalize_text=normalize_text,
                options=options,
            )
            if ref_audio is not None:
                prompt = self.create_voice(ref_audio, ref_text, preprocess_prompt=request.options.preprocess_prompt)
                request = replace(request, voices=(prompt,) * len(request.texts))
            results = self._run(request, seed, progress)
        return results[0] if request.single else results

    def generate_voice_clone(
        self,
        text: str | Sequence[str],
        ref_audio: str | Path | tuple[Any, int] | None = None,
        ref_text: str | None = None,
        language: str | Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """`generate` in the voice of a recording (`ref_audio`, `ref_text`) or of `voice=`.

        Without a transcript upstream's recogniser (Whisper) writes one, which needs its weights.
        """
        if ref_audio is None and kwargs.get("voice") is None:
            raise InputError("cloning needs ref_audio=, a recording, or voice=, a prompt from create_voice()")
        return self.generate(text, language, ref_audio=ref_audio, ref_text=ref_text, **kwargs)

    def generate_voice_design(
        self,
        text: str | Sequence[str],
        instruct: str | Sequence[str | None],
        language: str | Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """`generate` in a voice described by `instruct`, such as `male, elderly, low pitch`."""
        if instruct is None or (isinstance(instruct, str) and not instruct.strip()):
            raise InputError("instruct is empty: give attributes such as 'female, high pitch'")
        return self.generate(text, language, instruct=instruct, **kwargs)

    def create_voice(
        self, ref_audio: str | Path | tuple[Any, int], ref_text: str | None = None, *, preprocess_prompt: bool = True
    ) -> Any:
        """Encode a reference recording once, for `voice=` in any number of calls.

        Args:
            ref_audio: path, or (samples (T,) or (channels, T), rate in Hz).
            ref_text: what is said in it; None or empty lets upstream's recogniser (Whisper) listen.
            preprocess_prompt: cut silences and complete the transcript's punctuation, as upstream does.

        Returns:
            Upstream's `VoiceClonePrompt`; its `save(path)` and `load(path)` keep it.
        """
        from omnivoice_triton.models.voices import encode_voice

        with self._lock:
            self._loaded()
            return encode_voice(self._model, ref_audio, ref_text or None, preprocess_prompt)

    def unload_model(self) -> None:
        """Take the patches out and free the memory; the runner can be loaded again."""
        import torch

        from omnivoice_triton.models.voices import release_encoder_cache

        with self._lock:
            if self._acceleration is not None:
                self._acceleration.undo()
            if self._model is not None:
                release_encoder_cache(self._model)
            self._saved_voices.clear()
            self._acceleration = None
            self._model = None
            gc.collect()
            if torch.device(self.device).type == "cuda":
                torch.cuda.empty_cache()

    def _loaded(self) -> Acceleration:
        if self._model is None or self._acceleration is None:
            raise NotLoaded("the model is not loaded: call load_model() first, or use the runner in a `with` block")
        return self._acceleration

    def _voices(self, voice: Any) -> Any:
        """Paths of saved voices become prompts, and every prompt is checked against the model."""
        from omnivoice_triton.models.voices import check_voice

        if isinstance(voice, list | tuple):
            return [self._voices(each) for each in voice]
        if isinstance(voice, str | Path):
            voice = self._saved_voices.load(voice)
        if voice is not None:
            check_voice(self._model, voice)
        return voice

    def _run(self, request: Request, seed: int, progress: Progress | None) -> list[Speech]:
        import torch

        from omnivoice_triton.models.voices import missing_extra

        acceleration = self._loaded()
        on_gpu = torch.device(self.device).type == "cuda"
        # Turbo's samples are on the host when it returns, so nothing of it can be left on the device.
        waits = on_gpu and acceleration.turbo is None
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        if waits:
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        try:
            with acceleration.call(self._model, seed, request, progress):
                audios = self._model.generate(**request.upstream_kwargs())
        except torch.OutOfMemoryError as error:
            raise out_of_memory("this request", self.device) from error
        except ImportError as error:
            raise missing_extra(error, request.normalize_text) from error
        if waits:
            torch.cuda.synchronize(self.device)
        elapsed = time.perf_counter() - start
        peak = peak_bytes(self.device) / 2**30 if on_gpu else 0.0
        return [
            Speech(
                audio=np.ascontiguousarray(audio, dtype=np.float32),
                sample_rate=self._model.sampling_rate,
                time_s=elapsed,
                seed=seed,
                mode=self.mode.name,
                peak_vram_gb=peak,
                batch_size=len(audios),
            )
            for audio in audios
        ]
