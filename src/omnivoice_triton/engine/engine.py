"""The `turbo` engine: decodes audio tokens for any number of requests at once, on one device.

engine = Engine(model)                     an upstream OmniVoice instance; weights are shared, not copied
engine.warmup()                            captures a graph for every bucket
tokens = engine.submit(Request(prompt, options, seed)); engine.run_until_idle(); tokens.result()   # [C, T]
engine.generate_tokens(task, config)       upstream's `_generate_iterative`, to be bound in its place
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from omnivoice_triton.engine.backbone import check_attention
from omnivoice_triton.engine.background import Background
from omnivoice_triton.engine.fp8 import FP8_FROM_ROWS, check_fp8, check_precision
from omnivoice_triton.engine.intake import Intake
from omnivoice_triton.engine.noise import NoiseSource, check_noise
from omnivoice_triton.engine.ops import resolve_backend
from omnivoice_triton.engine.precompile import precompile
from omnivoice_triton.engine.prompt import PromptBuilder
from omnivoice_triton.engine.request import DecodeOptions, Request
from omnivoice_triton.engine.scheduler import CLOSED, Scheduler
from omnivoice_triton.engine.step import StepRunner
from omnivoice_triton.engine.step_graphs import Capture, CudaCapture, run_eagerly
from omnivoice_triton.engine.stream import EngineStream, no_grad
from omnivoice_triton.engine.teacher_forcing import forced_logits
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.engine.wide import WIDEST_ROWS, decode_wide
from omnivoice_triton.speech import InputError

DEFAULT_MAX_ROWS = 4096
"""Packed rows of the largest bucket: 8 clones of 6 s take 3,700."""
DEFAULT_MAX_ITEMS = 64


class Engine:
    """Decodes audio tokens with an upstream model's weights.

    Args:
        model: an upstream OmniVoice instance; only its language model and text tokenizer are used.
        backend: `triton`, `reference` (plain PyTorch, any device, slow) or `auto` (Triton on CUDA).
        noise: `philox` (a request's noise depends on its seed alone) or `torch` (upstream's draws in upstream's order).
        max_rows: packed rows that may run together, both guidance branches counted; a multiple of `granule`.
        max_items: requests that may run together.
        granule: rows between two of the smaller buckets.
        share_weights: re-point the model's Linears at the engine's fused tensors instead of doubling them.
        tiles: tile choices, or a file of them that `omnivoice-triton tune` has written; by default those of the
            package for this GPU.
        capture: how a step is captured; by default a CUDA graph on CUDA, and nothing elsewhere.
        attention: `exact`, or `int8`: products of queries and keys in INT8. Logits are then no longer the model's own
            to its dtype; an item's noise and neighbours still don't touch each other.
        precision: None for the model's dtype, or `fp8`: the four matrix products of each layer in FP8 (3 bits of
            mantissa, a relative error of 3 to 4 % each) in buckets of `fp8_from_rows` packed rows or more, for which
            8-bit copies of the weights are made beside the others (0.44 GB of the full model). Which bucket a step
            takes depends on who else is decoded: so then do an item's tokens.
        fp8_from_rows: packed rows of the smallest bucket that runs in FP8.

    Raises:
        InputError: an argument out of range, or a dtype that FP8 products can't put out here.
        ModeUnavailable: `precision="fp8"` on a GPU without FP8.
        CheckpointError: the model's tensors aren't those of its config.
        UpstreamChanged: its architecture is another.
    """

    def __init__(
        self,
        model: Any,
        *,
        backend: str = "auto",
        noise: str = "philox",
        max_rows: int = DEFAULT_MAX_ROWS,
        max_items: int = DEFAULT_MAX_ITEMS,
        granule: int = 64,
        share_weights: bool = True,
        tiles: Tiles | str | Path | None = None,
        capture: Capture | None = None,
        attention: str = "exact",
        precision: str | None = None,
        fp8_from_rows: int = FP8_FROM_ROWS,
    ) -> None:
        self.noise = check_noise(noise)
        self.attention = check_attention(attention)
        self.precision = check_precision(precision)
        with no_grad(), ExitStack() as undo:
            self.weights = BackboneWeights.from_upstream(model, share=share_weights)
            undo.callback(self.weights.unshare)  # nobody will ever close an engine that can't be made
            self.shape = self.weights.shape
            self.device = self.weights.device
            self.backend = resolve_backend(backend, self.device)
            if precision == "fp8":
                check_fp8(self.backend, self.weights)
            fitting = (self.shape, self.weights.dtype.itemsize, _capability(self.device))
            if not isinstance(tiles, Tiles):
                tiles = Tiles.default(*fitting) if tiles is None else Tiles.read(tiles, *fitting)
            if attention == "int8":
                tiles = replace(tiles, attention=())  # tuned for another kernel
            if capture is None:
                capture = CudaCapture(self.device) if self._captures_graphs else run_eagerly
            self._build = partial(
                StepRunner.build,
                self.weights,
                backend=self.backend,
                tiles=tiles,
                noise=noise,
                attention=attention,
                fp8_from_rows=fp8_from_rows if precision == "fp8" else None,
            )
            self.runner = self._build(capture=capture, max_rows=max_rows, max_items=max_items, granule=granule)
            undo.pop_all()
        self.prompts = PromptBuilder(model.text_tokenizer)
        self._intake = Intake(self.shape, self.weights.text_embedding.shape[0], max_rows)
        self._scheduler = Scheduler(self.runner, self.runner.fits)
        self._background = Background(self._scheduler)
        self._source = NoiseSource(noise, self.shape, self.device)
        self._stream = EngineStream(self.device)
        self._closing = False

    @property
    def _captures_graphs(self) -> bool:
        return self.backend == "triton" and self.device.type == "cuda"

    def __repr__(self) -> str:
        """Back end, buckets and load."""
        running, waiting = self._scheduler.load
        graphs = self.runner.graphs
        return (
            f"<Engine: {self.backend} on {self.device}, {self.weights.dtype}, {self.noise} noise, {self._given_up}"
            f"{graphs.captures} of {len(self.runner.grid.buckets)} buckets captured, "
            f"{running} running, {waiting} waiting>"
        )

    @property
    def _given_up(self) -> str:
        """Exactness that options gave up, for the repr."""
        fp8 = self.runner.backbone.fp8
        parts = ["INT8-QK attention"] if self.attention == "int8" else []
        parts += [f"FP8 from {fp8.from_rows} rows"] if fp8 is not None else []
        return "".join(f"{part}, " for part in parts)

    def warmup(self) -> None:
        """Capture every bucket; without it the first step does.

        Afterwards nothing is captured any more, and no step allocates: a request takes memory for its prompt, its
        tokens and, with `torch` noise and class temperature, its draws, and gives it back.
        """
        self._check_open()
        with self._scheduler.stepping, self._stream.entered():
            self._capture()

    def _capture(self) -> None:
        if self._captures_graphs:
            rows = {bucket.rows for bucket in self.runner.grid.buckets}
            precompile(self.runner.backbone.tiles, rows, bf16=self.weights.dtype is torch.bfloat16)
        self.runner.graphs.warmup()

    def manual_seed(self, seed: int) -> None:
        """Draw the noise of later `generate_tokens` calls from `seed`, rather than from torch's global generator."""
        self._source.manual_seed(seed)

    def submit(self, request: Request) -> Future[torch.Tensor]:
        """Queue a request; its future gives the tokens, [C, T] int64 on the engine's device.

        They may still be on their way, on the stream that was current when the engine was made. Somebody has to call
        `step` or `run_until_idle`, unless `start` was called. `future.cancel()` takes the request out at the next step
        boundary. With `torch` noise the request is a batch of one.

        Raises:
            InputError: it can't be decoded, or not by an engine of this size.
        """
        self._check_open()
        self._intake.job(request, None)  # refused before its noise is drawn
        self._stream.take(request.prompt.reference)
        with self._stream.entered():
            draws = self._source.of_request(request)
        job = self._intake.job(request, draws)
        self._scheduler.submit([job])
        return job.future

    def step(self) -> bool:
        """One decoding step of everything that runs; returns whether anything is left to do."""
        with self._scheduler.stepping, self._stream.entered():
            if not self.runner.graphs.ready and not self._closing:
                self._capture()
            return self._scheduler.step()

    def run_until_idle(self) -> None:
        """Step until nothing runs and nothing waits."""
        while self.step():
            pass

    def start(self) -> None:
        """Step in a background thread from now on; a second call does nothing."""
        self._check_open()
        self._background.start(self.step)

    def close(self) -> None:
        """Stop the background thread, cancel what is left, and give upstream's Linears their own tensors back."""
        self._closing = True
        self._background.stop()
        self._scheduler.close()
        with no_grad():
            self.weights.unshare()

    def __enter__(self) -> Engine:
        """Use as `with Engine(model) as engine: …`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()

    def generate_tokens(
        self,
        task: Any,
        gen_config: Any,
        *,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[torch.Tensor]:
        """Upstream's `_generate_iterative`: a GenerationTask and its config to one [C, T] int64 tensor for each item.

        Bound in its place on an upstream instance, upstream's `generate()` runs on this engine, with chunking, voices
        and every option. Items run together as far as the engine's rows allow; one that takes more than all of them
        runs by itself, more slowly. Seeds come from `manual_seed`, or from torch's global generator, as upstream's do;
        with `torch` noise in fp32 the tokens are upstream's own.

        Args:
            task: upstream's GenerationTask.
            gen_config: upstream's generation config.
            seeds: of each item's `philox` noise, instead.
            generator: of the whole task's `torch` noise, on the engine's device, instead.
            on_step: called after each step with (steps done, steps in all), both summed over the items. Steps count
                when the device has them queued: nothing waits for it. Not called where a background thread steps.

        Raises:
            InputError: an item can't be decoded; none is then.
        """
        self._check_open()
        options = DecodeOptions.from_config(gen_config)
        prompts = [self.prompts.from_task(task, i, gen_config.denoise) for i in range(task.batch_size)]
        for prompt in prompts:
            self._intake.job(Request(prompt, options), None, most_rows=WIDEST_ROWS)  # refused before any noise is drawn
        with self._stream.entered():
            frames = [prompt.frames for prompt in prompts]
            seeds, draws = self._source.of_batch(frames, options, seeds=seeds, generator=generator)
            jobs = [
                self._intake.job(Request(prompt, options, seed), draw, most_rows=WIDEST_ROWS)
                for prompt, seed, draw in zip(prompts, seeds, draws, strict=True)
            ]
        caller = self._stream.join_caller()
        total = sum(len(job.counts) for job in jobs)
        together = [job for job in jobs if job.rows <= self.runner.grid.max_rows]
        self._scheduler.submit(together)

        def tell() -> None:
            if on_step is not None:
                on_step(sum(job.step for job in jobs), total)

        try:
            if not self._background.running or self._background.is_current:
                while not all(job.future.done() for job in together):
                    self.step()
                    tell()
            for job in jobs:
                if job not in together:
                    decode_wide(job, self._build_wide, self._turn, tell)
            tokens = [job.future.result() for job in jobs]
        except CancelledError:
            raise InputError(CLOSED) from None  # nobody else has these futures
        except BaseException:
            for job in jobs:
                job.future.cancel()
            raise
        for result in tokens:
            self._intake.trust(result)
        self._stream.hand_over(tokens, caller)
        return tokens

    def logits(
        self, task: Any, gen_config: Any, tokens: Sequence[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Teacher forcing: each item's conditional and unconditional logits, given its tokens [C, T] as they stand.

        Returns:
            For each item fp32 [C, T, Va] twice; the second is None without guidance.
        """
        options = DecodeOptions.from_config(gen_config)
        prompts = [self.prompts.from_task(task, i, gen_config.denoise) for i in range(task.batch_size)]
        jobs = [self._intake.job(Request(prompt, options), None) for prompt in prompts]
        if not self.runner.fits(sum(job.rows for job in jobs), len(jobs)):
            raise InputError(f"{len(jobs)} items don't fit together: give fewer, or raise max_rows")
        with self._scheduler.stepping, self._stream.entered():
            if any(self._scheduler.load):
                raise InputError("logits() needs an idle engine")
            return forced_logits(self.runner, jobs, tokens)

    def _build_wide(self, rows: int) -> StepRunner:
        return self._build(capture=run_eagerly, max_rows=rows, max_items=1, granule=rows)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._scheduler.stepping, self._stream.entered():
            self._check_open()
            yield

    def _check_open(self) -> None:
        if self._closing:
            raise InputError(CLOSED)


def _capability(device: torch.device) -> int:
    """Compute capability as 75, 90, …; 0 off CUDA."""
    if device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
