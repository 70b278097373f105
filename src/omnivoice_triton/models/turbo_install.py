"""Put mode turbo onto an upstream OmniVoice instance, with the engine's options checked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from omnivoice_triton.engine.backbone import check_attention
from omnivoice_triton.engine.codec import PRECISIONS, CodecDecoder
from omnivoice_triton.engine.codec_graphs import Capture, CodecGraphs
from omnivoice_triton.engine.engine import DEFAULT_MAX_ITEMS, DEFAULT_MAX_ROWS, Engine
from omnivoice_triton.engine.fp8 import check_precision
from omnivoice_triton.engine.noise import check_noise
from omnivoice_triton.models.parking import park_encoder, park_text_embedding
from omnivoice_triton.models.turbo import BOUND, TurboHandle
from omnivoice_triton.speech import InputError, UpstreamChanged

DEFAULT_CODEC_BUDGET_MB = 384
GRANULE = 64
"""Packed rows between two of the engine's smaller buckets."""

_USED = ("_preprocess_all", "_generate_chunked", "_estimate_target_tokens", *BOUND)


def install_turbo(
    model: Any,
    *,
    noise: str = "philox",
    max_rows: int = DEFAULT_MAX_ROWS,
    max_items: int = DEFAULT_MAX_ITEMS,
    attention: str = "exact",
    precision: str | None = None,
    codec_precision: str = "tf32",
    reference_encoder: bool = True,
    host_embedding: bool = False,
    tiles: str | Path | None = None,
    codec_budget_mb: int = DEFAULT_CODEC_BUDGET_MB,
    codec_capture: Capture | None = None,
    warm: bool = False,
) -> TurboHandle:
    """Run an upstream OmniVoice instance's `generate()` on the engine.

    Args:
        model: from `OmniVoice.from_pretrained`, on the device that it is to run on. On a GPU the engine runs on
            Triton kernels and CUDA graphs, elsewhere on PyTorch alone.
        noise: `philox` (a text's noise depends on its seed alone) or `torch` (upstream's draws in upstream's order).
        max_rows: packed rows (prompt, and twice the frames with guidance) that may run together; a multiple of 64.
        max_items: texts that may run together.
        attention: `exact`, or `int8` for INT8 products of queries and keys: what attention puts out is about 1 % off,
            so tokens differ from upstream's.
        precision: None for the model's dtype. `fp8`, for throughput of large batches, multiplies in FP8 with a scale
            for each row and channel (3 to 4 % off, each product) wherever a step's bucket has 512 packed rows or more,
            and in the model's dtype below, where FP8 is slower. Tokens differ from upstream's, and a text's tokens
            then depend on how many are decoded with it. 0.44 GB more memory; needs compute capability 8.9.
        codec_precision: `tf32` as upstream, `fp32` or `bf16`.
        reference_encoder: whether recordings can be cloned. False moves what encodes them, 0.7 GB, to the host's
            memory until `undo()`; `ref_audio` then raises InputError, saved voices work as ever.
        host_embedding: keep the text embedding, 0.3 GB of which a request reads some dozen rows, in the host's memory;
            the model's own forward then waits for the host. A runner, whose model is its own, does so by default.
        tiles: file of tile choices that `omnivoice-triton tune` has written, in place of the package's for this GPU.
        codec_budget_mb: memory that the codec's graphs may hold, in MB.
        codec_capture: stand-in for the codec's CUDA capture, for tests.
        warm: capture everything now, rather than in the first generate().

    Raises:
        InputError: an option out of range, or a model that is patched already.
        ModeUnavailable: `precision="fp8"` on a GPU without FP8.
        CheckpointError, UpstreamChanged: the model is not one that the engine can run.
    """
    check_engine_values(
        {
            "noise": noise,
            "max_rows": max_rows,
            "max_items": max_items,
            "attention": attention,
            "precision": precision,
            "codec_precision": codec_precision,
            "reference_encoder": reference_encoder,
            "host_embedding": host_embedding,
            "tiles": tiles,
        }
    )
    missing = [name for name in _USED if not callable(getattr(type(model), name, None))]
    if missing:
        raise UpstreamChanged(f"this omnivoice has no {missing[0]}: install omnivoice>=0.2.1,<0.3")
    replaced = [name for name in (*_USED, "forward") if name in model.__dict__]
    if replaced:
        raise InputError(f"this model's {replaced[0]} is replaced already: undo() that first")
    if model.audio_tokenizer is None or model.text_tokenizer is None:
        raise InputError("the model has no tokenizers: load it by OmniVoice.from_pretrained()")
    device = model.llm.norm.weight.device
    with ExitStack() as undo:
        # Before anything else: a model that `load_for_engine` has read has these parts in the host's memory already.
        if not reference_encoder:
            undo.callback(park_encoder(model, device))
        if host_embedding:
            undo.callback(park_text_embedding(model, device))
        if device.type == "cuda" and (host_embedding or not reference_encoder):
            torch.cuda.empty_cache()
        decoder = CodecDecoder.from_upstream(model.audio_tokenizer, precision=codec_precision)
        graphs = None
        if codec_capture is not None or decoder.device.type == "cuda":
            graphs = CodecGraphs(decoder, budget_mb=codec_budget_mb, capture=codec_capture)
        engine = Engine(
            model,
            noise=noise,
            max_rows=max_rows,
            max_items=max_items,
            granule=GRANULE,
            attention=attention,
            precision=precision,
            tiles=tiles,
        )
        handle = TurboHandle(model, engine, decoder, graphs)
        handle.on_undo(undo.pop_all().close)
    if warm:
        try:
            handle.warmup()
        except BaseException:
            handle.undo()
            raise
    return handle


def check_engine_values(options: dict[str, Any]) -> None:
    """Raise InputError for a value that an engine option can't have."""
    check_noise(options.get("noise", "philox"))
    check_attention(options.get("attention", "exact"))
    check_precision(options.get("precision"))
    precision = options.get("codec_precision", "tf32")
    if precision not in PRECISIONS:
        raise InputError(f"unknown codec precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    for name in ("reference_encoder", "host_embedding"):
        if not isinstance(options.get(name, False), bool):
            raise InputError(f"{name} must be True or False, not {options[name]!r}")
    if not isinstance(options.get("tiles"), str | Path | None):
        raise InputError(f"tiles must be a file that `omnivoice-triton tune` has written, not {options['tiles']!r}")
    if options.get("tiles") is not None and not Path(options["tiles"]).expanduser().is_file():
        raise InputError(f"can't read the tile table {str(options['tiles'])!r}: no such file")
    for name in ("max_rows", "max_items"):
        value = options.get(name, GRANULE)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    if options.get("max_rows", GRANULE) % GRANULE:
        raise InputError(f"max_rows must be a multiple of {GRANULE}, not {options['max_rows']}")
