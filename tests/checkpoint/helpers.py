"""Paths and edits that the tests of checkpoints share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

DATA = Path(str(resources.files("omnivoice_triton"))) / "data"
LM, CODEC = "model.safetensors", "audio_tokenizer/model.safetensors"
UP, NORM = "llm.layers.1.mlp.up_proj.weight", "llm.norm.weight"
GOLDEN_TEXT = (
    "<|lang_start|>English<|lang_end|><|instruct_start|>None<|instruct_end|><|text_start|>hello world<|text_end|>"
)
# Token ids of the real tokenizer, k2-fsa/OmniVoice at revision c5fdb5cc.
GOLDEN_IDS = [151670, 22574, 151671, 151672, 4064, 151673, 151674, 14990, 1879, 151675]


def load_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def edit_json(path: Path, *keys: str, value: object) -> None:
    document = load_json(path)
    section = document
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    path.write_text(json.dumps(document), encoding="utf-8")


def edit_tensors(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = load_file(path)
    edit(content)
    save_file(content, path)


def fingerprint(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
