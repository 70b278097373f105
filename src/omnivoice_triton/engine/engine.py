"""The `turbo` engine: decodes audio tokens for any number of requests at once, on one device.

engine = Engine(model)                     an upstream OmniVoice instance; weights are shared, not copied
engine.warmup()                            captures a graph for every bucket
tokens = engine.submit(Request(prompt, options, seed)); engine.run_until_idle(); tokens.result()   # [C, T]
engine.generate_tokens(task, config)       upstream's `_generate_iterative`, to be bound in its place
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch

from omnivoice_triton.engine.backbone import Backbone, check_attention
from omnivoice_triton.engine.fp8 import FP8_FROM_ROWS, Fp8Layers, check_fp8, check_precision
from omnivoice_triton.engine.layout import BucketGrid, row_count
from omnivoice_triton.engine.noise import (
    TorchDraws,
    Uniforms,
    check_noise,
    default_generator,
    draw_seed,
    plan_torch_draws,
)
from omnivoice_triton.engine.ops import get_ops, resolve_backend
from omnivoice_triton.engine.precompile import precompile
from omnivoice_triton.engine.prompt import Prompt, PromptBuilder
from omnivoice_triton.engine.request import DecodeOptions, Request
from omnivoice_triton.engine.schedule import working_counts
from omnivoice_triton.engine.scheduler import Job, Scheduler
from omnivoice_triton.engine.state import DecodeState
from omnivoice_triton.engine.step import StepRunner
from omnivoice_triton.engine.step_graphs import Capture, CudaCapture, run_eagerly
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.speech import InputError

logger = logging.getLogger(__name__)

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
        tiles: tile choices; by default those of the package for this GPU.
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
        tiles: Tiles | None = None,
        capture: Capture | None = None,
        attention: str = "exact",
        precision: str | None = None,
        fp8_from_rows: int = FP8_FROM_ROWS,
    ) -> None:
        self.noise = check_noise(noise)
        self.attention = check_attention(attention)
        self.precision = check_precision(precision)
        with _no_grad():
            self.weights = BackboneWeights.from_upstream(model, share=share_weights)
            self.shape = self.weights.shape
            self.device = self.weights.device
            self.backend = resolve_backend(backend, self.device)
            if precision == "fp8":
                self._check_fp8()
            if tiles is None:
                tiles = Tiles.default(self.shape, self.weights.dtype.itemsize, _capability(self.device))
            if attention == "int8":
                tiles = replace(tiles, attention=())  # tuned for another kernel
            grid = BucketGrid(max_rows, max_items, granule, lambda rows: tiles.for_attention(rows).rows)
            uniforms = None
            if noise == "torch":
                uniforms = Uniforms.allocate(max_rows, self.shape.codebooks, self.shape.audio_vocab, self.device)
            if capture is None:
                capture = CudaCapture(self.device) if self._captures_graphs else run_eagerly
            ops = get_ops(self.backend, pdl=tiles.pdl)
            fp8 = Fp8Layers(self.weights, ops, max_rows, fp8_from_rows) if precision == "fp8" else None
            self.runner = StepRunner(
                Backbone(self.weights, ops, tiles, max_rows, attention=attention, fp8=fp8),
                DecodeState(self.weights, max_rows, max_items),
                grid,
                capture,
                uniforms,
            )
        self.prompts = PromptBuilder(model.text_tokenizer)
        self._text_vocab = self.weights.text_embedding.shape[0]
        self._scheduler = Scheduler(self.runner, lambda rows, items: grid.holding(rows, items) is not None)
        self._stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        self._seeds: torch.Generator | None = None
        self._draws: torch.Generator | None = None
        self._checked: dict[int, weakref.ref[torch.Tensor]] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    def _check_fp8(self) -> None:
        try:
            check_fp8(self.backend, self.weights)
        except Exception:
            self.weights.unshare()  # nobody will ever close this engine
            raise

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
        """Capture every bucket. Without it the first step does; afterwards nothing is captured or allocated."""
        with self._scheduler.stepping, self._on_device():
            self._capture()

    def _capture(self) -> None:
        if self._captures_graphs:
            rows = {bucket.rows for bucket in self.runner.grid.buckets}
            precompile(self.runner.backbone.tiles, rows, bf16=self.weights.dtype is torch.bfloat16)
        self.runner.graphs.warmup()

    def manual_seed(self, seed: int) -> None:
        """Draw the noise of later `generate_tokens` calls from `seed`, rather than from torch's global generator."""
        self._seeds = torch.Generator().manual_seed(seed)
        self._draws = torch.Generator(device=self.device).manual_seed(seed)

    def submit(self, request: Request) -> Future[torch.Tensor]:
        """Queue a request; its future gives the tokens, [C, T] int64 on the engine's device.

        Somebody has to call `step` or `run_until_idle`, unless `start` was called. `future.cancel()` takes the request
        out at the next step boundary. With `torch` noise the request is a batch of one.

        Raises:
            InputError: it can't be decoded, or not by an engine of this size.
        """
        draws = None
        self._check_open()
        if self.noise == "torch":
            with self._on_device():
                generator = torch.Generator(device=self.device).manual_seed(request.seed % 2**63)
                draws = self._plan([request.prompt.frames], request.options, generator)[0]
        job = self._job(request, draws)
        self._scheduler.submit([job])
        return job.future

    def step(self) -> bool:
        """One decoding step of everything that runs; returns whether anything is left to do."""
        with self._scheduler.stepping, self._on_device():
            if not self.runner.graphs.ready:
                self._capture()
            return self._scheduler.step()

    def run_until_idle(self) -> None:
        """Step until nothing runs and nothing waits."""
        while self.step():
            pass

    def start(self) -> None:
        """Step in a background thread from now on; a second call does nothing."""
        self._check_open()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="omnivoice-turbo", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the background thread, cancel what is left, and give upstream's Linears their own tensors back."""
        self._closing = True
        self._scheduler.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._scheduler.abort()
        with _no_grad():
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
        and every option. Items run together as far as the engine's rows allow. Seeds come from `manual_seed`, or from
        torch's global generator, as upstream's do; with `torch` noise in fp32 the tokens are upstream's own.

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
        draws: Sequence[TorchDraws | None] = [None] * len(prompts)
        with self._on_device():
            if self.noise == "torch":
                source = generator or self._draws or default_generator(self.device)
                draws = self._plan([prompt.frames for prompt in prompts], options, source)
            elif seeds is None:
                seeds = [draw_seed(self._seeds) for _ in prompts]
            jobs = [
                self._job(Request(prompt, options, seed), draw)
                for prompt, seed, draw in zip(prompts, seeds or [0] * len(prompts), draws, strict=True)
            ]
        caller = self._join_caller()
        self._scheduler.submit(jobs)
        try:
            if self._thread is None:
                total = sum(len(job.counts) for job in jobs)
                while not all(job.future.done() for job in jobs):
                    self.step()
                    if on_step is not None:
                        on_step(sum(job.step for job in jobs), total)
            tokens = [job.future.result() for job in jobs]
        except BaseException:
            for job in jobs:
                job.future.cancel()
            raise
        for result in tokens:
            self._trust(result)
            if caller is not None and self._stream is not None:
                result.record_stream(caller)
        if caller is not None and self._stream is not None:
            caller.wait_stream(self._stream)
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
        jobs = [self._job(Request(prompt, options), None) for prompt in prompts]
        if self.runner.grid.holding(sum(job.rows for job in jobs), len(jobs)) is None:
            raise InputError(f"{len(jobs)} items don't fit together: give fewer, or raise max_rows")
        with self._scheduler.stepping, self._on_device():
            if any(self._scheduler.load):
                raise InputError("logits() needs an idle engine")
            try:
                for job, canvas in zip(jobs, tokens, strict=True):
                    self.runner.admit(job)
                    self.runner.place()
                    assert job.placement is not None
                    self.runner.state.write_tokens(job.placement, canvas.to(self.device))
                layout = self.runner.arrange(jobs)
                flat = self.runner.logits(layout).float()
            finally:
                for job in jobs:
                    self.runner.release(job)
        rows, results = 0, []
        for job in jobs:
            branches = []
            for _ in range(2 if options.guided else 1):
                part = flat[rows : rows + job.request.prompt.frames]
                branches.append(part.view(len(part), self.shape.codebooks, -1).transpose(0, 1))
                rows += len(part)
            results.append((branches[0], branches[1] if options.guided else None))
        return results

    def _check_open(self) -> None:
        if self._closing:
            raise InputError("this engine is closed: make a new one")

    def _job(self, request: Request, draws: TorchDraws | None) -> Job:
        """A checked job: whatever could break a step is refused here, in the caller's hands."""
        prompt, options, grid = request.prompt, request.options, self.runner.grid
        if len(prompt.text_ids) and not 0 <= prompt.text_ids.min() <= prompt.text_ids.max() < self._text_vocab:
            raise InputError(f"text ids must be 0 to {self._text_vocab - 1}")
        self._check_reference(prompt)
        rows = row_count(prompt.rows, prompt.frames, options.guided)
        if rows > grid.max_rows:
            raise InputError(
                f"this request takes {rows} rows (prompt {prompt.rows}, {prompt.frames} frames"
                f"{', guided' if options.guided else ''}), but the engine holds {grid.max_rows}: "
                "give a shorter text or reference, or raise max_rows"
            )
        counts = working_counts(prompt.frames, self.shape.codebooks, options.num_step, options.t_shift)
        return Job(request, rows, counts, draws)

    def _check_reference(self, prompt: Prompt) -> None:
        """Refuse codes outside the codebooks: on a GPU they would be read from foreign memory.

        A reference on the GPU has to be waited for, so each tensor is checked once.
        """
        reference = prompt.reference
        if reference is None:
            return
        known = self._checked.get(id(reference))
        if known is not None and known() is reference:
            return
        codebooks, mask_id = self.shape.codebooks, self.shape.mask_id
        if reference.shape[0] != codebooks:
            raise InputError(f"reference has {reference.shape[0]} codebooks, wanted {codebooks}")
        # The mask id itself has an embedding, and a chunk may end before every cell is decided.
        if reference.numel() and not 0 <= int(reference.min()) <= int(reference.max()) <= mask_id:
            raise InputError(f"reference codes must be 0 to {mask_id - 1}")
        if reference.device.type != "cpu":
            self._trust(reference)

    def _trust(self, tensor: torch.Tensor) -> None:
        key = id(tensor)
        self._checked[key] = weakref.ref(tensor, lambda _: self._checked.pop(key, None))

    def _plan(self, frames: list[int], options: DecodeOptions, generator: torch.Generator) -> list[TorchDraws]:
        return plan_torch_draws(
            frames,
            options,
            codebooks=self.shape.codebooks,
            audio_vocab=self.shape.audio_vocab,
            generator=generator,
        )

    def _serve(self) -> None:
        while not self._closing:
            try:
                busy = self.step()
            except Exception as error:
                # Nobody else would ever tell those who wait.
                logger.exception("the turbo engine failed a step")
                self._scheduler.abort(error)
                continue
            if not busy and not self._closing:
                self._scheduler.wait()

    def _join_caller(self) -> torch.cuda.Stream | None:
        """Make the engine's stream wait for the caller's, if they differ, and return the caller's."""
        if self._stream is None:
            return None
        caller = torch.cuda.current_stream(self.device)
        if caller == self._stream:
            return None
        self._stream.wait_stream(caller)
        return caller

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        with _no_grad():
            if self._stream is None:
                yield
            else:
                with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
                    yield


@contextmanager
def _no_grad() -> Iterator[None]:
    """No autograd, and ordinary tensors even inside a caller's inference mode: the buffers outlive it."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _capability(device: torch.device) -> int:
    """Compute capability as 75, 90, …; 0 off CUDA."""
    if device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
