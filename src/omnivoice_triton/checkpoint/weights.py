"""Random weights that behave like a model, and the safetensors file they are written to.

Plain initialisation makes a model that runs and proves nothing: zero codebooks make all codes sound alike, flat logits
leave the argmax to rounding, unit Snakes hide a wrong alpha. The scales below keep every signal alive: activations of
order 1 through all layers, logits with a standard deviation near 4, audio with a peak of a few tenths.

Every block of 4 Mi elements has a generator of its own, seeded from seed, tensor name and block number, so that bytes
depend neither on the order of the work nor on the number of threads.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from omnivoice_triton.checkpoint.dimensions import LanguageModelDims
from omnivoice_triton.checkpoint.files import TensorSpec

RECIPE = 1
"""Raise when the same seed no longer gives the same weights: the cached tiny model is kept under this number."""

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
"""Bytes per element, by safetensors dtype name."""

_BLOCK = 1 << 22


class Draw(NamedTuple):
    """A tensor's distribution: normal, or constant where `std` is 0; `low` bounds it from below."""

    mean: float = 0.0
    std: float = 0.0
    low: float | None = None


DrawRule = Callable[[str, TensorSpec], Draw]


def lm_draw(dims: LanguageModelDims) -> DrawRule:
    """Distributions of the language model's tensors."""
    # What the layers add to the residual stream adds up to order 1, whatever their number.
    depth = 1 / math.sqrt(dims.layers)
    residual = {"o_proj.weight": min(1.0, 1.6 * depth), "down_proj.weight": min(1.0, 0.8 * depth)}

    def draw(name: str, spec: TensorSpec) -> Draw:
        fan_in = spec.shape[-1]
        # All masked frames start from one embedding, and only rotary positions tell them apart: with attention scores
        # of std 1 their logits differ by 3 % of the logits' own std, with 1.5^2 by 20 % (full size, fp32, 60 frames).
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            return Draw(1.5, 0.15)
        if name.endswith("norm.weight"):
            return Draw(1.0, 0.1)
        if name.endswith(".bias"):
            return Draw(0.0, 0.01)
        if name == "llm.embed_tokens.weight":
            return Draw(0.0, 1.0)
        if name == "audio_embeddings.weight":
            return Draw(0.0, 1.0 / math.sqrt(dims.codebooks))  # One from each codebook is summed.
        if name == "audio_heads.weight":
            return Draw(0.0, 4.0 / math.sqrt(fan_in))  # Hidden states are normalised, so logits have a std of 4.
        gain = next((value for suffix, value in residual.items() if name.endswith(suffix)), 1.0)
        return Draw(0.0, gain / math.sqrt(fan_in))

    return draw


def codec_draw(name: str, spec: TensorSpec) -> Draw:
    """Distribution of a codec tensor."""
    shape = spec.shape
    if name.endswith(".alpha"):
        return Draw(1.0, 0.2, low=0.25)
    if name.endswith((".embed", ".embed_avg")):
        return Draw(0.0, 1.0)
    if name.endswith((".inited", ".cluster_size", ".original0")):
        return Draw(1.0)
    if name.endswith("norm.weight"):
        return Draw(1.0, 0.1)
    if name.endswith(".bias"):
        return Draw(0.0, 0.01)
    if ".conv_t1." in name:
        return Draw(0.0, 1.0 / math.sqrt(2 * shape[0]))  # Kernel 2s at stride s: two taps reach each output sample.
    gain = 0.35 if ".res_unit" in name else 0.025 if name == "acoustic_decoder.conv2.weight" else 1.0
    return Draw(0.0, gain / math.sqrt(math.prod(shape[1:])))


def file_bytes(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None = None) -> int:
    """Size of the safetensors file that holds these tensors."""
    return len(_header(specs, metadata)) + sum(spec.size * ITEM_BYTES[spec.dtype] for spec in specs.values())


def write_random(
    path: Path,
    specs: Mapping[str, TensorSpec],
    draw: DrawRule,
    seed: int,
    *,
    fixed: Mapping[str, npt.NDArray[Any]] | None = None,
    metadata: Mapping[str, str] | None = None,
    done: Callable[[int], None] | None = None,
) -> None:
    """Write a safetensors file of random tensors, block by block, with one thread per core.

    `fixed` holds the tensors that are not random. Memory stays below 50 MB a thread. `done` is told the bytes of each
    block as it reaches the file, one call at a time.
    """
    fixed = fixed or {}
    header = _header(specs, metadata)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(file_bytes(specs, metadata))
    lock = threading.Lock()

    def write(block: _Block) -> None:
        data = fixed[block.name] if block.name in fixed else _values(block, draw(block.name, block.spec), seed)
        with path.open("r+b") as file:
            file.seek(len(header) + block.offset)
            file.write(data.data)
        if done is not None:
            with lock:
                done(data.nbytes)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        pending = [pool.submit(write, block) for block in _blocks(specs)]
        try:
            for future in pending:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Block(NamedTuple):
    name: str
    spec: TensorSpec
    number: int
    size: int
    offset: int
    """Bytes from the end of the header."""


def _ordered(specs: Mapping[str, TensorSpec]) -> list[tuple[str, TensorSpec]]:
    # As safetensors' own writer: widest dtype first, so that everything is aligned, then by name.
    return sorted(specs.items(), key=lambda item: (-ITEM_BYTES[item[1].dtype], item[0]))


def _header(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, spec in _ordered(specs):
        end = offset + spec.size * ITEM_BYTES[spec.dtype]
        entries[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(specs: Mapping[str, TensorSpec]) -> Iterator[_Block]:
    offset = 0
    for name, spec in _ordered(specs):
        for number, start in enumerate(range(0, spec.size, _BLOCK)):
            size = min(_BLOCK, spec.size - start)
            yield _Block(name, spec, number, size, offset)
            offset += size * ITEM_BYTES[spec.dtype]


def _values(block: _Block, draw: Draw, seed: int) -> npt.NDArray[Any]:
    if draw.std == 0:
        values = np.full(block.size, draw.mean, np.float32)
    else:
        # The moving sum of a codebook entry equals the entry itself, as after training on clusters of size 1.
        name = re.sub(r"\.embed_avg$", ".embed", block.name)
        digest = hashlib.sha256(f"{seed}/{name}/{block.number}".encode()).digest()
        generator = np.random.Generator(np.random.SFC64(np.frombuffer(digest, np.uint32)))
        values = generator.standard_normal(block.size, np.float32)
        values *= np.float32(draw.std)
        values += np.float32(draw.mean)
    if draw.low is not None:
        np.maximum(values, np.float32(draw.low), out=values)
    return _cast(values, block.spec.dtype)


def _cast(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    if dtype == "F16":
        return values.astype(np.float16)
    if dtype == "BF16":  # Upper half of the float32, rounded to nearest even.
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return values
