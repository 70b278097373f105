"""Loading an upstream model onto a device."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from omnivoice_triton.imports import quick_imports
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
    from omnivoice_triton.models.parking import encoder_parts

    model = load_upstream(path, "cpu", dtype)
    target = torch.device(device)
    if target.type == "cpu":
        return model
    stay = [model.llm.embed_tokens] if host_embedding else []
    if not reference_encoder:
        stay += encoder_parts(model)
    for layer in model.llm.layers:
        fuse_linears(layer, target)
    _move(model, target, {id(module) for module in stay})
    return model


def host_prefixes(*, reference_encoder: bool = True, host_embedding: bool = True) -> list[str]:
    """How the names of the checkpoint's tensors begin that `load_for_engine` leaves in the host's memory."""
    from omnivoice_triton.models.parking import ENCODER_PARTS

    found = ["llm.embed_tokens."] if host_embedding else []
    return found if reference_encoder else [*found, *(f"{part}." for part in ENCODER_PARTS)]


def _move(module: Any, device: Any, stay: Container[int]) -> None:
    """`module.to(device)` without the submodules whose ids are in `stay`."""
    if id(module) in stay:
        return
    for child in module.children():
        _move(child, device, stay)
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(device)
    for name, buffer in list(module.named_buffers(recurse=False)):
        setattr(module, name, buffer.to(device))
