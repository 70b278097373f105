"""Which files a checkpoint directory holds, and how they are read without loading a tensor.

The layout is that of the hub repository k2-fsa/OmniVoice: the language model at the top, the codec (Higgs Audio V2
tokenizer) in `audio_tokenizer/`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from omnivoice_triton.speech import CheckpointError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
PREPROCESSOR = "preprocessor_config.json"
CODEC_DIR = "audio_tokenizer"

LAYOUT = (
    CONFIG,
    WEIGHTS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    f"{CODEC_DIR}/{CONFIG}",
    f"{CODEC_DIR}/{PREPROCESSOR}",
    f"{CODEC_DIR}/{WEIGHTS}",
)
"""Every file that upstream's `from_pretrained` reads, relative to the checkpoint."""

MARKER = "omnivoice_triton"
"""Key in config.json under which a checkpoint made here says what it is; upstream carries it along unread."""

REMEDY = "fetch the model again, or write a working one with `omnivoice-triton make-checkpoint DIR`"


class TensorSpec(NamedTuple):
    """Shape and safetensors dtype name (F32, BF16, I64, …) of one tensor."""

    shape: tuple[int, ...]
    dtype: str = "F32"

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size


def expand(path: str | Path) -> Path:
    """The path with a leading ~ replaced; one that can't be is left as it is, to be reported as missing."""
    return Path(os.path.expanduser(path))


def missing_files(directory: Path) -> list[str]:
    """Names from `LAYOUT` that are not there; sharded weights count through their index and every shard."""
    missing: list[str] = []
    for name in LAYOUT:
        path = directory / name
        if path.is_file():
            continue
        index = path.with_name(INDEX)
        if path.name == WEIGHTS and index.is_file():
            parent = Path(name).parent
            missing += [str(parent / shard) for shard in _shards(index) if not (index.parent / shard).is_file()]
        else:
            missing.append(name)
    return missing


def stamp(directory: Path) -> tuple[tuple[int, int], ...] | None:
    """Time of change (ns) and size of each file of `LAYOUT`; None where one is missing or the weights are in shards."""
    try:
        found = [(directory / name).stat() for name in LAYOUT]
    except OSError:
        return None
    return tuple((each.st_mtime_ns, each.st_size) for each in found)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        CheckpointError: unreadable, no JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror or error}") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise CheckpointError(f"{path} is not valid JSON ({one_line(error)}): {REMEDY}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(value).__name__}: {REMEDY}")
    return value


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of the model in `directory`: one, or the shards that its index names."""
    single = directory / WEIGHTS
    if single.is_file():  # Takes precedence over an index, as in transformers.
        return [single]
    return [directory / shard for shard in _shards(directory / INDEX)]


def read_headers(directory: Path) -> dict[str, TensorSpec]:
    """Name -> shape and dtype of every tensor of the model in `directory`; only headers are read.

    Raises:
        CheckpointError: a file is truncated, corrupt or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, TensorSpec] = {}
    for path in weight_files(directory):
        try:
            with safe_open(path, framework="np") as handle:
                for name in handle.keys():  # noqa: SIM118 - not a mapping
                    view = handle.get_slice(name)
                    found[name] = TensorSpec(tuple(view.get_shape()), view.get_dtype())
        except OSError as error:
            raise CheckpointError(f"can't read {path}: {error.strerror or one_line(error)}") from error
        except SafetensorError as error:
            if _starts_with(path, b"version https://git-lfs"):
                raise CheckpointError(f"{path} is a git-lfs pointer, not the weights: run `git lfs pull`") from error
            raise CheckpointError(f"{path} is truncated or corrupt ({one_line(error)}): {REMEDY}") from error
    return found


def one_line(error: Exception) -> str:
    """The message of a foreign exception without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _shards(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} must map tensor names to files under 'weight_map': {REMEDY}")
    return sorted(set(weight_map.values()))


def _starts_with(path: Path, prefix: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(prefix)) == prefix
