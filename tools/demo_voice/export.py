"""Write what was trained: a checkpoint in OmniVoice's layout, and the judge beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from tools.demo_voice.corpus import Clip
from tools.demo_voice.tokenizer import write_tokenizer

from omnivoice_triton.checkpoint.demo import SENTENCES

MARKER = {"size": "demo", "weights": "trained"}
"""Under "omnivoice_triton" in config.json: what kind of checkpoint this is."""


def export_codec(codec: Any, directory: Path) -> None:
    """Write audio_tokenizer/: fp16 on disk, fp32 once loaded."""
    from safetensors.torch import save_file

    path = directory / "audio_tokenizer"
    path.mkdir(parents=True, exist_ok=True)
    config = codec.config.to_dict()
    config["architectures"] = ["HiggsAudioV2TokenizerModel"]
    config["dtype"] = "float32"
    _write_json(path / "config.json", config)
    template = resources.files("omnivoice_triton") / "data" / "tiny" / "audio_tokenizer" / "preprocessor_config.json"
    (path / "preprocessor_config.json").write_bytes(template.read_bytes())
    state = {name: value for name, value in codec.state_dict().items() if not name.endswith("masked_spec_embed")}
    # Training's sums and counts: means and ones say the same and fit into fp16
    means = {name: state[name.removesuffix("_avg")] for name in state if name.endswith("embed_avg")}
    counts = {name: torch.ones_like(value) for name, value in state.items() if name.endswith("cluster_size")}
    state |= means | counts
    tensors = {name: value.detach().half().cpu().contiguous().clone() for name, value in state.items()}
    too_large = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if too_large:
        raise ValueError(f"{too_large[0]} doesn't fit into fp16")
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "model.safetensors").chmod(0o644)


def export_model(model: Any, directory: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write config.json, tokenizer and model.safetensors; fp32 once loaded, unless the loader asks for less."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(directory)
    config = model.config.to_dict()
    config["omnivoice_triton"] = MARKER
    _write_json(directory / "config.json", config)
    tensors = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(tensors, directory / "model.safetensors")
    (directory / "model.safetensors").chmod(0o644)


def export_sentences(clips: Iterable[Clip], directory: Path) -> None:
    """Write sentences.json: what is held out, language by language in the plan's order."""
    rows = [{"language": clip.language, "text": clip.text} for clip in clips if clip.held_out]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (directory / SENTENCES).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
