"""The backbone's weights as the engine uses them: q, k, v and gate, up fused, taken from an upstream model.

Fusing copies; to keep one copy only, the upstream Linears are re-pointed at views of the fused tensors, which leaves
the upstream model working and bit-identical. `unshare()` gives each its own tensor back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from omnivoice_triton.engine.shape import TEXT_EMBEDDING, BackboneShape
from omnivoice_triton.speech import CheckpointError

_FUSED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
}


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer; matrices are [out, in]."""

    input_norm: torch.Tensor  # [H]
    qkv: torch.Tensor  # [(Hq + 2 Hkv) D, H]
    q_norm: torch.Tensor  # [D]
    k_norm: torch.Tensor  # [D]
    o: torch.Tensor  # [H, Hq D]
    post_norm: torch.Tensor  # [H]
    gate_up: torch.Tensor  # [2 I, H]
    down: torch.Tensor  # [H, I]


class BackboneWeights:
    """Weights of the whole language model on one device in one dtype; make it with `from_upstream`."""

    def __init__(
        self,
        shape: BackboneShape,
        layers: tuple[LayerWeights, ...],
        final_norm: torch.Tensor,
        text_embedding: torch.Tensor,
        audio_embedding: torch.Tensor,
        audio_heads: torch.Tensor,
        rotary: nn.Module,
    ) -> None:
        self.shape = shape
        self.layers = layers
        self.final_norm = final_norm  # [H]
        self.text_embedding = text_embedding  # [text vocabulary, H]
        self.audio_embedding = audio_embedding  # [C * Va, H]
        self.audio_heads = audio_heads  # [C * Va, H]
        self._rotary = rotary
        self._shared: list[nn.Parameter] = []

    @property
    def dtype(self) -> torch.dtype:
        """Of every weight and of the activations."""
        return self.final_norm.dtype

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.final_norm.device

    @property
    def shared(self) -> bool:
        """Whether upstream's Linears are views of the fused tensors."""
        return bool(self._shared)

    @classmethod
    def from_upstream(cls, model: Any, *, share: bool = True) -> BackboneWeights:
        """Take the weights of an upstream OmniVoice instance.

        Args:
            model: the instance; its other parts (codec, tokenizer) are left alone.
            share: re-point its Linears at views of the fused tensors, so that memory isn't doubled. One layer at a
                time: the peak is one layer above the model.

        Raises:
            CheckpointError: a tensor is missing, surplus, of another shape, dtype or device. The text embedding may be
                in the host's memory.
            UpstreamChanged: the config describes another architecture.
        """
        shape = BackboneShape.from_config(model.config)
        _check_tensors(model, shape)
        layers, shared = [], []
        for layer in model.llm.layers:
            fused = {}
            for name, parts in _FUSED.items():
                linears = [layer.get_submodule(part) for part in parts]
                fused[name] = _fuse([linear.weight for linear in linears])
                if share:
                    shared.extend(_point_at_views(fused[name], linears))
            attention = layer.self_attn
            layers.append(
                LayerWeights(
                    input_norm=layer.input_layernorm.weight.detach(),
                    qkv=fused["qkv"],
                    q_norm=attention.q_norm.weight.detach(),
                    k_norm=attention.k_norm.weight.detach(),
                    o=attention.o_proj.weight.detach().contiguous(),
                    post_norm=layer.post_attention_layernorm.weight.detach(),
                    gate_up=fused["gate_up"],
                    down=layer.mlp.down_proj.weight.detach().contiguous(),
                )
            )
        weights = cls(
            shape,
            tuple(layers),
            final_norm=model.llm.norm.weight.detach(),
            text_embedding=model.llm.embed_tokens.weight.detach(),
            audio_embedding=model.audio_embeddings.weight.detach(),
            audio_heads=model.audio_heads.weight.detach(),
            rotary=model.llm.rotary_emb,
        )
        weights._shared = shared
        return weights

    def unshare(self) -> None:
        """Give upstream's Linears tensors of their own again, equal to the bit; a second call does nothing."""
        for parameter in self._shared:
            parameter.data = parameter.data.clone()
        self._shared = []

    def rotary_tables(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine of positions 0 to `positions` - 1, each [positions, D/2] in the weights' dtype.

        From upstream's own module, so that they are its very bits; both halves of a head share the angles.
        """
        ids = torch.arange(positions, device=self.device)[None]
        cos, sin = self._rotary(self.final_norm, ids)
        half = self.shape.head_dim // 2
        return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def fuse_linears(layer: Any, device: torch.device) -> None:
    """Move what of an upstream decoder layer the engine has fused to `device`, as views of one tensor each.

    `from_upstream` finds them so, and copies nothing.
    """
    for parts in _FUSED.values():
        linears = [layer.get_submodule(part) for part in parts]
        weights = [linear.weight.detach() for linear in linears]
        rows = sum(len(weight) for weight in weights)
        fused = torch.empty(rows, weights[0].shape[1], dtype=weights[0].dtype, device=device)
        for weight, there in zip(weights, torch.split(fused, [len(weight) for weight in weights]), strict=True):
            there.copy_(weight)
        _point_at_views(fused, linears)


def _check_tensors(model: Any, shape: BackboneShape) -> None:
    found = {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if not name.startswith("audio_tokenizer.")
    }
    wanted = dict(shape.tensors(model.config.llm_config.vocab_size))
    for what, names in (
        ("lacks", wanted.keys() - found.keys()),
        ("has a surplus tensor", found.keys() - wanted.keys()),
    ):
        if names:
            raise CheckpointError(f"the language model {what} {min(names)} ({len(names)} in all)")
    first = found["llm.norm.weight"]
    for name, expected in wanted.items():
        tensor = found[name]
        if tuple(tensor.shape) != expected:
            raise CheckpointError(f"{name} has shape {tuple(tensor.shape)}, wanted {expected}")
        kind_differs = tensor.is_floating_point() and tensor.dtype is not first.dtype
        elsewhere = tensor.device != first.device and not (name == TEXT_EMBEDDING and tensor.device.type == "cpu")
        if kind_differs or elsewhere:
            raise CheckpointError(
                f"{name} is {tensor.dtype} on {tensor.device}, but llm.norm.weight is {first.dtype} on {first.device}: "
                "the turbo engine needs one dtype and one device"
            )


def _fuse(parts: list[nn.Parameter]) -> torch.Tensor:
    """The parts stacked along dimension 0: a view if they lie one behind the other already, else a copy."""
    datas = [part.detach() for part in parts]
    first = datas[0]
    storage, offset = first.untyped_storage(), first.storage_offset()
    for data in datas:
        if (
            data.untyped_storage().data_ptr() != storage.data_ptr()
            or data.storage_offset() != offset
            or not data.is_contiguous()
        ):
            return torch.cat(datas)
        offset += data.numel()
    rows = sum(data.shape[0] for data in datas)
    return first.as_strided((rows, first.shape[1]), (first.shape[1], 1))


def _point_at_views(fused: torch.Tensor, linears: Iterable[Any]) -> list[nn.Parameter]:
    """Make each Linear's weight the view of its rows."""
    row, pointed = 0, []
    for linear in linears:
        weight: nn.Parameter = linear.weight
        rows = weight.shape[0]
        weight.data = fused[row : row + rows]
        pointed.append(weight)
        row += rows
    return pointed
