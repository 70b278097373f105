"""Does a directory hold a checkpoint that fits together, what is it, and how much memory will it take?

Upstream loads a directory that lacks tensors and fills the gaps at random, with no more than a log line. So all names,
shapes and types are compared with what the config demands before anything is loaded; only headers are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.checkpoint import dimensions, files, tensors
from omnivoice_triton.checkpoint.files import REMEDY, TensorSpec
from omnivoice_triton.checkpoint.weights import ITEM_BYTES
from omnivoice_triton.speech import CheckpointError, InputError

SPECIAL_TOKENS = (
    "<|denoise|>",
    "<|lang_start|>",
    "<|lang_end|>",
    "<|instruct_start|>",
    "<|instruct_end|>",
    "<|text_start|>",
    "<|text_end|>",
)
"""The tokens that OmniVoice adds to Qwen3's tokenizer."""

_FLOATS = ("F64", "F32", "F16", "BF16")

# Surplus tensors that transformers drops without a word: buffers of older releases, and HuBERT's training mask.
_IGNORED = re.compile(r"rotary_emb\.inv_freq|^semantic_model\.masked_spec_embed$")

# Older names of weight norm's two halves, which transformers still maps.
_WEIGHT_NORM = ((re.compile(r"\.weight_g$"), 0), (re.compile(r"\.weight_v$"), 1))

_sound: dict[Path, tuple[tuple[int, int], ...]] = {}
"""What was found in order in this process, and its files' stamps: a command line and its runner both ask."""


def validate_checkpoint(path: str | Path) -> None:
    """Check that `path` is a complete checkpoint whose tensors fit its configs; sharded weights are fine.

    Raises:
        CheckpointError: it is not; the message is one line that names the first fault and what to do.
    """
    directory = files.expand(path)
    stamp = files.stamp(directory)
    if stamp is not None and _sound.get(directory) == stamp:
        return
    if not directory.is_dir():
        state = "is not a directory" if directory.exists() else "does not exist"
        raise CheckpointError(f"{directory} {state}: a model is a directory such as `make-checkpoint DIR` writes")
    missing = files.missing_files(directory)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{directory} lacks {missing[0]}{more}: {REMEDY}")

    config_path, codec_config_path = directory / files.CONFIG, directory / files.CODEC_DIR / files.CONFIG
    lm = dimensions.read_language_model(files.read_json(config_path), str(config_path))
    codec = dimensions.read_codec(files.read_json(codec_config_path), str(codec_config_path))
    dimensions.check_pair(lm, codec, str(codec_config_path))
    _check_tokenizer(directory, lm.text_vocab)
    _check_preprocessor(directory / files.CODEC_DIR / files.PREPROCESSOR, codec)

    found = files.read_headers(directory)
    _compare(tensors.language_model_tensors(lm), found, directory)
    _compare(tensors.codec_tensors(codec), files.read_headers(directory / files.CODEC_DIR), directory / files.CODEC_DIR)
    if stamp is not None:
        _sound[directory] = stamp


def checkpoint_kind(path: str | Path) -> str:
    """What a checkpoint is: "random-tiny", "random-full", "trained-demo" or, for one not made here, "real".

    Raises:
        CheckpointError: config.json can't be read.
    """
    marker = files.read_json(files.expand(path) / files.CONFIG).get(files.MARKER)
    if not isinstance(marker, Mapping):
        return "real"
    return f"{marker.get('weights', 'unknown')}-{marker.get('size', 'unknown')}"


def is_random(path: str | Path) -> bool:
    """Whether the checkpoint has random weights, that is, whether its speech is noise."""
    return checkpoint_kind(path).startswith("random")


def is_demo(path: str | Path) -> bool:
    """Whether the checkpoint is a demo voice: real speech, of the sentences that it carries and their like."""
    return checkpoint_kind(path) == "trained-demo"


def parameter_bytes(path: str | Path, dtype: object = "float32", *, without: Sequence[str] = ()) -> dict[str, int]:
    """Bytes that the weights take once loaded: `lm` at `dtype` (a name or a torch.dtype), `codec` in float32.

    Tensors whose names in the model begin with one of `without` don't count; the codec's begin with `audio_tokenizer.`.

    Raises:
        InputError: no floating-point dtype of that name.
        CheckpointError: a file is missing or unreadable.
    """
    directory = files.expand(path)
    missing = files.missing_files(directory)
    if missing:
        raise CheckpointError(f"{directory} lacks {missing[0]}: {REMEDY}")
    widths = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
    name = str(dtype).removeprefix("torch.")
    if name not in widths:
        raise InputError(f"unknown dtype {dtype!r}: choose one of {', '.join(widths)}")

    def count(model: Path, width: int, prefix: str = "") -> int:
        headers = files.read_headers(model).items()
        specs = [spec for tensor, spec in headers if not f"{prefix}{tensor}".startswith(tuple(without))]
        return sum(spec.size * (width if spec.dtype in _FLOATS else ITEM_BYTES.get(spec.dtype, 8)) for spec in specs)

    codec = count(directory / files.CODEC_DIR, widths["float32"], f"{files.CODEC_DIR}.")
    return {"lm": count(directory, widths[name]), "codec": codec}


def _check_tokenizer(directory: Path, text_vocab: int) -> None:
    files.read_json(directory / files.TOKENIZER_CONFIG)
    path = directory / files.TOKENIZER
    tokenizer = files.read_json(path)
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if not isinstance(vocabulary, Mapping) or not isinstance(added, list):
        raise CheckpointError(f"{path} has no vocabulary with added tokens: {REMEDY}")
    ids = dict(vocabulary) | {token.get("content"): token.get("id") for token in added if isinstance(token, Mapping)}
    absent = [token for token in SPECIAL_TOKENS if token not in ids]
    if absent:
        raise CheckpointError(f"{path} lacks the special token {absent[0]}: it is not an OmniVoice tokenizer; {REMEDY}")
    # A set of types first: to ask each of 150,000 ids for its own takes as long as to parse the file.
    values = ids.values()
    highest = max(values) if {*map(type, values)} == {int} else max(v for v in (0, *values) if isinstance(v, int))
    if highest >= text_vocab:
        raise CheckpointError(
            f"{path} has ids up to {highest}, but vocab_size={text_vocab} in {files.CONFIG}: {REMEDY}"
        )


def _check_preprocessor(path: Path, codec: dimensions.CodecDims) -> None:
    settings: dict[str, Any] = files.read_json(path)
    wanted = {"sampling_rate": codec.sample_rate_hz, "hop_length": codec.hop}
    for name, value in wanted.items():
        if settings.get(name) != value:
            raise CheckpointError(f"{path}: {name} is {settings.get(name)!r}, but the codec's config says {value}")


def _compare(expected: Mapping[str, TensorSpec], found: Mapping[str, TensorSpec], model: Path) -> None:
    weights = model / files.WEIGHTS
    present = {_current_name(name): spec for name, spec in found.items() if not _IGNORED.search(name)}
    missing = [name for name in expected if name not in present]
    surplus = [name for name in present if name not in expected]
    if missing:
        raise CheckpointError(
            f"{weights} lacks {_count(missing)} that {files.CONFIG} demands"
            + (f", and has {_count(surplus)} in surplus" if surplus else "")
            + f": {REMEDY}"
        )
    if surplus:
        raise CheckpointError(f"{weights} has {_count(surplus)} that {files.CONFIG} has no place for: {REMEDY}")
    misshaped = [name for name, spec in expected.items() if present[name].shape != spec.shape]
    if misshaped:
        first = misshaped[0]
        raise CheckpointError(
            f"{weights}: {_count(misshaped)} of another shape than {files.CONFIG} demands: "
            f"{list(present[first].shape)} instead of {list(expected[first].shape)}: {REMEDY}"
        )
    for name, spec in expected.items():
        allowed = _FLOATS if spec.dtype in _FLOATS else (spec.dtype,)
        if present[name].dtype not in allowed:
            raise CheckpointError(
                f"{weights}: {name} is stored as {present[name].dtype}, but {' or '.join(allowed)} is needed: {REMEDY}"
            )


def _current_name(name: str) -> str:
    for pattern, half in _WEIGHT_NORM:
        name = pattern.sub(f".parametrizations.weight.original{half}", name)
    return name


def _count(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} tensors (first {names[0]})"
