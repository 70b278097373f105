"""Parts of a model that wait in the host's memory while it speaks without them; each comes back bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from omnivoice_triton.speech import InputError, UpstreamChanged

ENCODER_PARTS = ("acoustic_encoder", "encoder_semantic", "decoder_semantic", "semantic_model", "fc", "fc1")
"""Parts of the codec that speaking doesn't need: 178 of 201 M weights, in float32."""


def park_encoder(model: Any, device: torch.device) -> Callable[[], None]:
    """Move what only encodes references to the host's memory; returns what brings it to `device`, bit for bit.

    Until then `create_voice_clone_prompt` raises InputError.

    Raises:
        UpstreamChanged: the codec has other parts.
    """
    tokenizer = model.audio_tokenizer
    missing = [name for name in ENCODER_PARTS if not isinstance(getattr(tokenizer, name, None), nn.Module)]
    if missing:
        raise UpstreamChanged(f"the codec has no {missing[0]}: install omnivoice>=0.2.1,<0.3")
    parts = [getattr(tokenizer, name) for name in ENCODER_PARTS]

    def move(to: torch.device) -> None:
        for part in parts:
            part.to(to)

    def restore() -> None:
        model.__dict__.pop("create_voice_clone_prompt", None)
        move(device)

    move(torch.device("cpu"))
    model.__dict__["create_voice_clone_prompt"] = _refuse
    return restore


def _refuse(*_: Any, **__: Any) -> Any:
    raise InputError(
        "reference_encoder=False left nothing here that encodes ref_audio: give voice=, a voice that was saved by "
        "create_voice(...).save(path) where the encoder is loaded"
    )


def check_encoder(model: Any) -> None:
    """Raise InputError if what encodes recordings is parked."""
    if model.__dict__.get("create_voice_clone_prompt") is _refuse:
        _refuse()


class HostEmbedding(nn.Embedding):
    """An embedding whose table is in the host's memory: looked up there, and the rows go where the ids are."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[...] ids to [..., H]."""
        return F.embedding(ids.to(self.weight.device), self.weight).to(ids.device)


def park_text_embedding(model: Any, device: torch.device) -> Callable[[], None]:
    """Move the text embedding to the host's memory; returns what brings it to `device`.

    Upstream's own forward goes on, with a wait for the host. The table becomes a buffer of the same name, so that the
    state dict keeps its keys, and the model its device, which is that of its first parameter.

    Raises:
        UpstreamChanged: the embedding is of another kind.
    """
    embedding: Any = model.llm.embed_tokens
    if type(embedding) is not nn.Embedding:
        raise UpstreamChanged(f"llm.embed_tokens is {embedding!r}, not a plain embedding")
    parameter: Any = embedding.weight
    table = parameter.detach().cpu()
    del embedding._parameters["weight"]
    embedding.register_buffer("weight", table)
    embedding.__class__ = HostEmbedding
    parameter.data = torch.empty(0, dtype=table.dtype, device=device)

    def restore() -> None:
        embedding.__class__ = nn.Embedding
        del embedding._buffers["weight"]
        parameter.data = table.to(device)
        embedding.register_parameter("weight", parameter)

    return restore
