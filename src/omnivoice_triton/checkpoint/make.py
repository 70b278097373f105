"""Write a complete checkpoint with random weights: same files, names, shapes and config as the real one.

The voice of random weights is noise. They are for tests, for a first run without a download, and for timing: the
full size does exactly the work of the real model.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.checkpoint import dimensions, files, tensors, weights
from omnivoice_triton.speech import InputError

SIZES = ("tiny", "full")
"""tiny: 4 layers 64 wide and a small codec, 9 MB. full: the real dimensions, 3.3 GB in float32."""

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Storage of the language model; the codec is always float32."""

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all), one call at a time, from whichever thread wrote them."""


def make_checkpoint(
    path: str | Path,
    size: str = "tiny",
    seed: int = 0,
    *,
    dtype: str = "float32",
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a checkpoint directory of random weights in the layout of k2-fsa/OmniVoice and return its path.

    The same size, seed and dtype give the same bytes (with the same numpy). The directory is written beside the
    target and moved there when complete, so the target is never half a checkpoint.

    Args:
        path: the directory to make; it may exist if it is empty.
        size: one of `SIZES`.
        seed: 0 or more.
        dtype: one of `DTYPES`, how the language model is stored.
        force: replace the checkpoint that is there; a directory holding anything else is refused all the same.
        progress: see `Progress`.

    Raises:
        InputError: unknown size or dtype, bad seed, a target that is not empty or can't be written, too little space.
    """
    if size not in SIZES:
        raise InputError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}")
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, not {seed!r}")
    if not str(path):
        raise InputError("no directory given: say where the checkpoint is to be written")
    # A link to a directory stays a link: the directory behind it is replaced.
    target = files.expand(path).resolve()
    try:
        replace = _check_target(target, force)
        plan = _Plan(size, seed, dtype)
        _check_space(target, plan.total_bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(target) as scratch:
            plan.write(scratch, progress)
            _move(scratch, target, replace)
    except OSError as error:
        raise InputError(f"can't write a checkpoint to {target}: {error.strerror or error}") from error
    return target


class _Plan:
    """What goes into the directory, known before anything is written."""

    def __init__(self, size: str, seed: int, dtype: str) -> None:
        self.size, self.seed = size, seed
        self.config = _template(size, files.CONFIG)
        self.config["dtype"] = self.config["llm_config"]["dtype"] = dtype
        self.config[files.MARKER] = {"recipe": weights.RECIPE, "seed": seed, "size": size, "weights": "random"}
        self.dims = dimensions.read_language_model(self.config)
        self.lm = {
            name: spec._replace(dtype=DTYPES[dtype]) if spec.dtype == "F32" else spec
            for name, spec in tensors.language_model_tensors(self.dims).items()
        }
        codec = _template(size, f"{files.CODEC_DIR}/{files.CONFIG}")
        self.codec = tensors.codec_tensors(dimensions.read_codec(codec))
        # As in the real repository: the language model has no metadata, the codec has.
        self.codec_metadata = {"format": "pt"}
        self.weight_bytes = weights.file_bytes(self.lm) + weights.file_bytes(self.codec, self.codec_metadata)
        self.total_bytes = self.weight_bytes + (12 << 20)  # Tokenizer and configs.

    def write(self, directory: Path, progress: Progress | None) -> None:
        (directory / files.CODEC_DIR).mkdir()
        for name in files.LAYOUT:
            if name == files.CONFIG:
                text = json.dumps(self.config, indent=2, sort_keys=True) + "\n"
                (directory / name).write_text(text, encoding="utf-8")
            elif not name.endswith(files.WEIGHTS):
                (directory / name).write_bytes(_template_bytes(self.size, name))
        written = 0

        def done(count: int) -> None:
            nonlocal written
            written += count
            if progress is not None:
                progress(written, self.weight_bytes)

        offsets = np.arange(self.dims.codebooks, dtype="<i8") * self.dims.audio_vocab
        weights.write_random(
            directory / files.WEIGHTS,
            self.lm,
            weights.lm_draw(self.dims),
            self.seed,
            fixed={tensors.OFFSETS: offsets},
            done=done,
        )
        weights.write_random(
            directory / files.CODEC_DIR / files.WEIGHTS,
            self.codec,
            weights.codec_draw,
            self.seed,
            metadata=self.codec_metadata,
            done=done,
        )


def _template(size: str, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_template_bytes(size, name))
    return value


def _template_bytes(size: str, name: str) -> bytes:
    data = resources.files("omnivoice_triton") / "data"
    if size == "full" and name == files.TOKENIZER:  # 11 MB as text
        try:
            import lzma
        except ImportError as error:  # A Python built without liblzma
            raise InputError("size 'full' needs Python's lzma module, which this Python was built without") from error
        return lzma.decompress((data / f"{files.TOKENIZER}.xz").read_bytes())
    return data.joinpath(size, *name.split("/")).read_bytes()


def _check_target(target: Path, force: bool) -> bool:
    """Whether the target has to be replaced; InputError if it must not be."""
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: name a directory")
    if not target.exists() or not any(target.iterdir()):
        return False
    if not force:
        raise InputError(f"{target} is not empty: name another directory, or use force (--force) to replace it")
    known = {name.split("/", maxsplit=1)[0] for name in files.LAYOUT}
    foreign = sorted(entry.name for entry in target.iterdir() if entry.name not in known)
    if foreign:
        raise InputError(f"{target} holds {foreign[0]!r}, which is not part of a checkpoint: it will not be replaced")
    return True


def _check_space(target: Path, wanted: int) -> None:
    existing = next(parent for parent in target.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < wanted:
        raise InputError(f"{target} needs {wanted / 1e9:.2f} GB of disk space, but {free / 1e9:.2f} GB are free")


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A new directory beside the target, removed unless it was moved away."""
    directory = _beside(target, "partial")
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _move(scratch: Path, target: Path, replace: bool) -> None:
    if not replace:
        os.rename(scratch, target)  # Fails if someone has filled the target meanwhile.
        return
    old = _beside(target, "old")
    os.rename(target, old)
    try:
        os.rename(scratch, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, suffix: str) -> Path:
    return target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}.{suffix}"
