"""Mode `turbo`: an upstream OmniVoice instance whose `generate()` runs on our own engine, codec and post-processing.

Upstream still prepares the request (languages, voices, lengths). Then all texts, and all chunks of long texts that
depend on nobody else's, are decoded as one batch; so are their codes; the samples come to the host in one copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from omnivoice_triton.config import GenerationOptions
from omnivoice_triton.engine.codec import CodecDecoder
from omnivoice_triton.engine.codec_graphs import CodecGraphs
from omnivoice_triton.engine.engine import Engine
from omnivoice_triton.engine.finish import Decoded, Finisher
from omnivoice_triton.engine.noise import draw_seed
from omnivoice_triton.models.handle import PatchHandle
from omnivoice_triton.models.progress import Progress, chunk_texts
from omnivoice_triton.models.seam import mark_changed
from omnivoice_triton.models.turbo_pieces import Piece, chunk_piece, item_seed
from omnivoice_triton.speech import InputError

BOUND = ("generate", "_generate_iterative")
"""What of an upstream instance is replaced."""


@dataclass
class _Call:
    """What the runner wants of the generate() that this thread is about to make."""

    seed: int | None = None
    generator: torch.Generator | None = None
    progress: Progress | None = None
    wave: int = 0
    """Decode loops done."""
    waves: int = 1
    """Decode loops in all."""


class TurboHandle(PatchHandle):
    """The engine on one model; made by `install_turbo`. Its calls may come from several threads."""

    def __init__(self, model: Any, engine: Engine, decoder: CodecDecoder, graphs: CodecGraphs | None) -> None:
        super().__init__("turbo", {"methods": len(BOUND)})
        self._parts: tuple[Any, Engine, CodecDecoder, CodecGraphs | None] | None = (model, engine, decoder, graphs)
        self._finisher = Finisher(model.sampling_rate)
        self._frame_rate: int = model.audio_tokenizer.config.frame_rate  # transformers takes 25 us to look it up
        self._calls = threading.local()
        self._sounding = threading.RLock()  # codec graphs and the finisher serve one thread at a time
        self._warm = threading.Event()
        model.__dict__["generate"] = self.generate
        model.__dict__["_generate_iterative"] = self.generate_tokens
        mark_changed(model.llm)
        self.on_undo(self._restore)

    @property
    def engine(self) -> Engine:
        """What decodes tokens."""
        return self._held()[1]

    @property
    def codec(self) -> CodecDecoder | CodecGraphs:
        """What decodes samples: through CUDA graphs where there is a GPU."""
        _, _, decoder, graphs = self._held()
        return graphs if graphs is not None else decoder

    def __repr__(self) -> str:
        """Engine, codec and whether they are in place."""
        if self._parts is None:
            return "<turbo: undone>"
        return f"<turbo: {self.engine!r}, {self.codec!r}; active>"

    def warmup(self) -> None:
        """Capture the graphs of engine and codec; otherwise the first generate() does. Nothing is captured later."""
        if self._warm.is_set():
            return
        self.engine.warmup()  # before the lock: a step's callback may come here while it holds the engine
        with self._sounding:
            if self._warm.is_set():
                return
            if isinstance(self.codec, CodecGraphs):
                with self._on_device():
                    self.codec.warmup()
            self._warm.set()

    @contextmanager
    def call(self, seed: int | None, progress: Progress | None = None) -> Iterator[None]:
        """Within the block this thread's generate() draws its noise from `seed`; torch's own generators rest.

        `philox` noise: `item_seed`. `torch` noise: as upstream's after `torch.manual_seed(seed)`.
        """
        call = _Call(seed, progress=progress)
        if seed is not None and self.engine.noise == "torch":
            call.generator = torch.Generator(self.engine.device).manual_seed(seed)
        before = self._call
        self._calls.call = call
        try:
            yield
        finally:
            self._calls.call = before

    @torch.inference_mode()
    def generate(
        self,
        text: str | list[str],
        language: str | list[str] | None = None,
        ref_text: str | list[str] | None = None,
        ref_audio: Any = None,
        voice_clone_prompt: Any = None,
        instruct: str | list[str] | None = None,
        duration: float | list[float | None] | None = None,
        speed: float | list[float | None] | None = None,
        generation_config: Any = None,
        normalize_text: bool = False,
        **kwargs: Any,
    ) -> list[npt.NDArray[np.float32]]:
        """Upstream's `OmniVoice.generate`: same arguments, same results, (T,) float32 for each text.

        Raises:
            InputError: an option out of range, or a request that the engine can't hold.
        """
        from omnivoice import OmniVoiceGenerationConfig

        model = self._held()[0]
        if model.audio_tokenizer is None or model.text_tokenizer is None:
            raise RuntimeError("the model has no tokenizers: load it by OmniVoice.from_pretrained()")
        config = OmniVoiceGenerationConfig.from_dict(kwargs) if generation_config is None else generation_config
        options = GenerationOptions(
            postprocess_output=bool(config.postprocess_output),
            pad_duration=config.pad_duration,
            fade_duration=config.fade_duration,
        )
        if model.training or ref_audio is not None:
            # The engine knows no training mode, the reference encoder does. Walking some 900 modules takes 2 ms.
            model.eval()
        task = model._preprocess_all(
            text=text,
            language=language,
            ref_text=ref_text,
            ref_audio=ref_audio,
            voice_clone_prompt=voice_clone_prompt,
            instruct=instruct,
            preprocess_prompt=config.preprocess_prompt,
            speed=speed,
            duration=duration,
            normalize_text=normalize_text,
        )
        self.warmup()
        decode = self._decode_in_upstreams_order if self.engine.noise == "torch" else self._decode_together
        return self._sound(decode(model, task, config), task.ref_rms, options)

    def generate_tokens(self, task: Any, config: Any) -> list[torch.Tensor]:
        """Upstream's `_generate_iterative`: each item's tokens, [C, T] int64."""
        call = self._call
        seeds = None
        if call.seed is not None:
            seeds = [item_seed(call.seed, item, call.wave) for item in range(task.batch_size)]
        tokens = self.engine.generate_tokens(
            task, config, seeds=seeds, generator=call.generator, on_step=self._on_step(call, config.num_step)
        )
        call.wave += 1
        return tokens

    def _decode_in_upstreams_order(self, model: Any, task: Any, config: Any) -> list[list[torch.Tensor]]:
        """Chunks of each item, one decode loop after the other: `torch` noise is drawn in that order."""
        short, long = task.get_indices(config, self._frame_rate)
        call = self._call
        call.wave = 0
        call.waves = bool(short) + max((len(chunk_texts(model, task, i, config)) for i in long), default=0)
        results: list[list[torch.Tensor]] = [[] for _ in range(task.batch_size)]
        if short:
            for item, tokens in zip(short, self.generate_tokens(task.slice_task(short), config), strict=True):
                results[item] = [tokens]
        if long:
            for item, chunks in zip(long, model._generate_chunked(task.slice_task(long), config), strict=True):
                results[item] = chunks
        return results

    def _decode_together(self, model: Any, task: Any, config: Any) -> list[list[torch.Tensor]]:
        """Chunks of each item in at most two decode loops.

        Chunks of a long text need only a reference, and without one they get the first chunk, as upstream has it: so
        all else is one batch, and what waited for a first chunk another.
        """
        call = self._call
        root = draw_seed(None) if call.seed is None else call.seed
        _, long = task.get_indices(config, self._frame_rate)
        texts = {item: chunk_texts(model, task, item, config) for item in long}
        now: list[Piece] = []
        later: list[tuple[int, int]] = []
        for item in range(task.batch_size):
            ref_text, reference = task.ref_texts[item], task.ref_audio_tokens[item]
            if item not in texts:
                now.append(Piece(item, 0, task.texts[item], task.target_lens[item], ref_text, reference))
                continue
            for chunk in range(len(texts[item])):
                if chunk == 0 or reference is not None:
                    now.append(chunk_piece(model, task, item, chunk, texts[item][chunk], ref_text, reference))
                else:
                    later.append((item, chunk))
        call.wave, call.waves = 0, 1 + bool(later)
        results: list[list[torch.Tensor]] = [[] for _ in range(task.batch_size)]
        self._decode_pieces(task, config, now, root, results)
        if later:
            waiting = [
                chunk_piece(model, task, item, chunk, texts[item][chunk], texts[item][0], results[item][0])
                for item, chunk in later
            ]
            self._decode_pieces(task, config, waiting, root, results)
        return results

    def _decode_pieces(
        self, task: Any, config: Any, pieces: Sequence[Piece], root: int, results: list[list[torch.Tensor]]
    ) -> None:
        """One decode loop; appends each piece's tokens to its item's."""
        batch = type(task)(
            batch_size=len(pieces),
            texts=[piece.text for piece in pieces],
            target_lens=[piece.frames for piece in pieces],
            langs=[task.langs[piece.item] for piece in pieces],
            instructs=[task.instructs[piece.item] for piece in pieces],
            ref_texts=[piece.ref_text for piece in pieces],
            ref_audio_tokens=[piece.reference for piece in pieces],
            ref_rms=[task.ref_rms[piece.item] for piece in pieces],
        )
        call = self._call
        seeds = [item_seed(root, piece.item, piece.chunk) for piece in pieces]
        on_step = self._on_step(call, config.num_step)
        for piece, tokens in zip(
            pieces, self.engine.generate_tokens(batch, config, seeds=seeds, on_step=on_step), strict=True
        ):
            results[piece.item].append(tokens)
        call.wave += 1

    def _sound(
        self, tokens: list[list[torch.Tensor]], ref_rms: Sequence[float | None], options: GenerationOptions
    ) -> list[npt.NDArray[np.float32]]:
        """Finished audio of each item from its chunks' tokens."""
        with self._sounding, self._on_device():
            # The engine's tokens are codes by construction; to look at them would be to wait for the device.
            waves = iter(self.codec.decode([chunk for chunks in tokens for chunk in chunks], check=False))
            decoded = [
                Decoded(tuple(next(waves) for _ in chunks), rms, options)
                for chunks, rms in zip(tokens, ref_rms, strict=True)
            ]
            finished = self._finisher.finish(decoded)
        audios = []
        for audio in finished:
            if isinstance(audio, InputError):
                raise audio
            audios.append(audio)
        return audios

    @property
    def _call(self) -> _Call:
        call: _Call | None = getattr(self._calls, "call", None)
        if call is None:
            call = self._calls.call = _Call()
        return call

    def _on_step(self, call: _Call, steps: int) -> Callable[[int, int], None] | None:
        """Steps of the items together, told as steps of one."""
        progress = call.progress
        if progress is None:
            return None

        def tell(done: int, total: int) -> None:
            waves = max(call.waves, call.wave + 1)
            progress(call.wave * steps + steps * done // total, waves * steps)

        return tell

    def _on_device(self) -> Any:
        device = self.engine.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _held(self) -> tuple[Any, Engine, CodecDecoder, CodecGraphs | None]:
        if self._parts is None:
            raise InputError("turbo was undone on this model: accelerate it anew")
        return self._parts

    def _restore(self) -> None:
        model, engine, _, graphs = self._held()
        for name in BOUND:
            model.__dict__.pop(name, None)
        engine.close()
        mark_changed(model.llm)
        with self._sounding:  # not while another thread's codes go through them
            if graphs is not None:
                graphs.clear()
            self._parts = None  # Whoever keeps the handle must not keep the memory.
        self._finisher = Finisher(self._finisher.sample_rate)
