"""Checkpoints: where a model lies, whether it fits together, and random ones to run without a download.

    resolve_model("k2-fsa/OmniVoice")     hub id, directory, "demo", "tiny" or None -> a checked directory
    make_checkpoint("dir", size="tiny")   a directory of random weights in the layout of the real one
    validate_checkpoint("dir")            names, shapes and types against the configs, in milliseconds

None of this imports torch.
"""

from omnivoice_triton.checkpoint.files import LAYOUT
from omnivoice_triton.checkpoint.make import DTYPES, SIZES, make_checkpoint
from omnivoice_triton.checkpoint.resolve import cache_dir, cached_checkpoint, resolve_model
from omnivoice_triton.checkpoint.validate import (
    SPECIAL_TOKENS,
    checkpoint_kind,
    is_demo,
    is_random,
    parameter_bytes,
    validate_checkpoint,
)

__all__ = [
    "DTYPES",
    "LAYOUT",
    "SIZES",
    "SPECIAL_TOKENS",
    "cache_dir",
    "cached_checkpoint",
    "checkpoint_kind",
    "is_demo",
    "is_random",
    "make_checkpoint",
    "parameter_bytes",
    "resolve_model",
    "validate_checkpoint",
]
