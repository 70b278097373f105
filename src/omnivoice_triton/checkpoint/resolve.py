"""From what a user calls a model to a directory on this machine: a path, a hub id, or one of the built-in models."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnivoice_triton.checkpoint.demo import DEMO, packaged_demo
from omnivoice_triton.checkpoint.files import expand
from omnivoice_triton.checkpoint.hub import download
from omnivoice_triton.checkpoint.make import SIZES, make_checkpoint
from omnivoice_triton.checkpoint.validate import validate_checkpoint
from omnivoice_triton.checkpoint.weights import RECIPE
from omnivoice_triton.speech import CheckpointError, InputError

logger = logging.getLogger(__name__)

TINY = "tiny"
BUILT_IN = (DEMO, TINY)
"""Names that are no directories and no hub ids."""
MODEL_VARIABLE = "OMNIVOICE_TRITON_MODEL"
"""Environment variable: the model to use when none is named."""
CACHE_VARIABLE = "OMNIVOICE_TRITON_CACHE"
"""Environment variable: where the random models are kept."""


def resolve_model(model: str | Path | None = None) -> Path:
    """The directory of a model, complete and checked.

    Args:
        model: a directory; a hub id such as `k2-fsa/OmniVoice`, fetched through huggingface_hub unless its cache has
            it; "demo", the packaged demo voice; "tiny", a small model of random weights; None for
            $OMNIVOICE_TRITON_MODEL or else "demo".

    Raises:
        CheckpointError: no such directory, or it is not a checkpoint that fits together.
        DownloadError: the hub has no such model, refuses it, or can't be reached.
    """
    if model is None:
        model = os.environ.get(MODEL_VARIABLE) or DEMO
    if model == TINY:  # A directory of that name is ./tiny.
        return cached_checkpoint(TINY)
    if model == DEMO:
        return _demo()
    path = expand(model)
    if not str(model) or not path.is_dir():
        if not isinstance(model, str) or _is_path(model):
            state = "is a file, not a directory" if path.is_file() else "does not exist"
            raise CheckpointError(
                f"the model directory {str(model)!r} {state}: give a directory such as `omnivoice-triton "
                f"make-checkpoint DIR` writes, or a hub id such as k2-fsa/OmniVoice"
            )
        path = download(model)
    validate_checkpoint(path)
    return path


def _demo() -> Path:
    path = packaged_demo()
    if path is None:
        raise CheckpointError("this installation lacks the demo voice's files: install it again, or name a model")
    validate_checkpoint(path)
    return path


def cache_dir() -> Path:
    """Where the random models are kept: $OMNIVOICE_TRITON_CACHE, else the user's cache directory.

    Raises:
        InputError: this user has no home directory.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return expand(own)
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():  # The XDG specification ignores relative ones.
        return Path(base) / "omnivoice-triton"
    try:
        return Path.home() / ".cache" / "omnivoice-triton"
    except RuntimeError as error:
        raise InputError(f"no home directory to keep models in: set {CACHE_VARIABLE}") from error


def cached_checkpoint(size: str = TINY) -> Path:
    """The random checkpoint of that size (seed 0, float32) in the cache directory, made on first use.

    Where that directory can't be written, a directory of this user's in the system's temp directory takes its place,
    with a warning in the log.

    Raises:
        InputError: unknown size, or no space for it anywhere.
    """
    if size not in SIZES:
        raise InputError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}")
    name = f"{size}-r{RECIPE}"  # The number makes a new release leave an old one's weights alone.
    try:
        directory = cache_dir()
        return directory / name if _usable(directory / name) else _make_once(directory, name, size)
    except (OSError, InputError) as error:
        fallback = _private_temp_dir()
        logger.warning("%s: the %s checkpoint is kept in %s instead", error, size, fallback)
        return fallback / name if _usable(fallback / name) else _make_once(fallback, name, size)


def _is_path(model: str) -> bool:
    return not model or model[0] in (os.sep, ".", "~") or "\\" in model or model.count("/") > 1 or Path(model).exists()


def _make_once(directory: Path, name: str, size: str) -> Path:
    """Make a checkpoint in `directory`; of several processes at once, one makes it and the others wait."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    with _lock(directory / f".{name}.lock"):
        if not _usable(path):
            # What is there is broken or was left by a killed process, and these names are ours alone.
            for leftover in (path, *directory.glob(f".{name}.*.partial")):
                shutil.rmtree(leftover, ignore_errors=True)
            make_checkpoint(path, size, seed=0)
    return path


def _usable(path: Path) -> bool:
    try:
        validate_checkpoint(path)
    except CheckpointError:
        return False
    return True


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; the system drops it if the process dies."""
    try:
        import fcntl
    except ImportError:  # Not a POSIX system: the final rename is atomic, so at worst the work is done twice.
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _private_temp_dir() -> Path:
    """A directory for this user in the system's temp directory; a stranger's of that name is not used."""
    owner = os.getuid() if hasattr(os, "getuid") else None
    path = Path(tempfile.gettempdir()) / f"omnivoice-triton-{owner}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if owner is None or (path.lstat().st_uid == owner and not path.is_symlink()):
            return path
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="omnivoice-triton-"))
