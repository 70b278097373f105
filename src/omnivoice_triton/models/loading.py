"""Loading an upstream model onto a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnivoice_triton.imports import collector_at_rest, quick_imports
from omnivoice_triton.models.gpu_context import begin_context

__all__ = ["host_prefixes", "import_upstream", "load_for_engine", "load_upstream"]


def import_upstream(device: str) -> None:
    """Import omnivoice and all that a runner on `device` needs: by far the longest part of a start."""
    context = begin_context(device)
    with quick_imports():
        import omnivoice  # noqa: F401
        import torch  # noqa: F401
    if context is not None:
        context.join()


def load_upstream(path: Path, device: str, dtype: Any) -> Any:
    """The upstream OmniVoice at `path`, on `device`, for inference.

    Args:
        path: checkpoint directory.
        device: a torch device.
        dtype: of the language model; the codec is loaded in fp32, as upstream does.
    """
    from omnivoice import OmniVoice

    with collector_at_rest():  # a tokenizer is a million objects, too
        return OmniVoice.from_pretrained(str(path), device_map=device, dtype=dtype).eval()


def load_for_engine(
    path: Path, device: str, dtype: Any, *, reference_encoder: bool = True, host_embedding: bool = True
) -> Any:
    """The same model with the same bits, laid out as mode turbo wants it; `install_turbo` then copies no weight.

    It is read into the host's memory and goes to `device` from there: what turbo would send back (`reference_encoder`,
    `host_embedding`, as `install_turbo` has them) stays, and the matrices that it fuses are fused on their way. Read
    onto the GPU and rearranged there, they would leave gaps in PyTorch's memory that nothing gets back.
    """
    import torch

    from omnivoice_triton.engine.weights import fuse_linears

    model = load_upstream(path, "cpu", dtype)
    target = torch.device(device)
    if target.type == "cpu":
        return model
    for layer in model.llm.layers:
        fuse_linears(layer, target)
    _move(model, target, host_prefixes(reference_encoder=reference_encoder, host_embedding=host_embedding))
    return model


def host_prefixes(*, reference_encoder: bool = True, host_embedding: bool = True) -> tuple[str, ...]:
    """How the names of the model's tensors begin that `load_for_engine` leaves in the host's memory."""
    from omnivoice_triton.models.parking import ENCODER_PARTS

    embedding = ("llm.embed_tokens.",) if host_embedding else ()
    return embedding if reference_encoder else (*embedding, *(f"audio_tokenizer.{part}." for part in ENCODER_PARTS))


def _move(model: Any, device: Any, stay: tuple[str, ...]) -> None:
    """`model.to(device)` without the tensors whose names begin with one of `stay`."""
    for name, parameter in model.named_parameters():
        if not name.startswith(stay):
            parameter.data = parameter.data.to(device)
    for name, buffer in list(model.named_buffers()):
        if not name.startswith(stay):
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, buffer.to(device))
