"""Names and shapes of every tensor of a checkpoint, as formulas of its dimensions.

Written out rather than asked of the upstream classes, so that a directory is checked in milliseconds, without torch;
a test holds the formulas against those classes, built on the meta device.
"""

from __future__ import annotations

from omnivoice_triton.checkpoint.dimensions import CodecDims, LanguageModelDims, SemanticDims
from omnivoice_triton.checkpoint.files import TensorSpec

OFFSETS = "codebook_layer_offsets"
"""The one integer tensor: id 0 of each codebook within the stacked audio embedding, shape (C,)."""


def language_model_tensors(dims: LanguageModelDims) -> dict[str, TensorSpec]:
    """Name -> shape and dtype of model.safetensors."""
    hidden, q_width, kv_width = dims.hidden, dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    shapes: dict[str, tuple[int, ...]] = {"llm.embed_tokens.weight": (dims.text_vocab, hidden)}
    for index in range(dims.layers):
        layer = f"llm.layers.{index}"
        for name, rows, columns in (
            ("q_proj", q_width, hidden),
            ("k_proj", kv_width, hidden),
            ("v_proj", kv_width, hidden),
            ("o_proj", hidden, q_width),
        ):
            shapes[f"{layer}.self_attn.{name}.weight"] = (rows, columns)
            if dims.attention_bias:
                shapes[f"{layer}.self_attn.{name}.bias"] = (rows,)
        for name in ("q_norm", "k_norm"):
            shapes[f"{layer}.self_attn.{name}.weight"] = (dims.head_dim,)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{layer}.mlp.{name}.weight"] = (dims.intermediate, hidden)
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, dims.intermediate)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (hidden,)
    shapes["llm.norm.weight"] = (hidden,)
    for name in ("audio_embeddings", "audio_heads"):
        shapes[f"{name}.weight"] = (dims.codebooks * dims.audio_vocab, hidden)
    return {OFFSETS: TensorSpec((dims.codebooks,), "I64")} | {name: TensorSpec(s) for name, s in shapes.items()}


def codec_tensors(dims: CodecDims) -> dict[str, TensorSpec]:
    """Name -> shape and dtype of audio_tokenizer/model.safetensors."""
    table = _Table()
    _acoustic_encoder(table, dims)
    _acoustic_decoder(table, dims)
    _semantic_coder(table, dims)
    _hubert(table, dims.semantic)
    width = dims.latent + dims.semantic.hidden
    table.affine("fc", width, width)
    table.affine("fc1", dims.semantic.hidden, width)
    table.affine("fc2", dims.latent, width)
    for index in range(dims.quantizers):
        quantizer = f"quantizer.quantizers.{index}"
        table.add(f"{quantizer}.codebook.inited", 1)
        table.add(f"{quantizer}.codebook.cluster_size", dims.codebook_size)
        table.add(f"{quantizer}.codebook.embed", dims.codebook_size, dims.codebook_dim)
        table.add(f"{quantizer}.codebook.embed_avg", dims.codebook_size, dims.codebook_dim)
        table.affine(f"{quantizer}.project_in", dims.codebook_dim, width)
        table.affine(f"{quantizer}.project_out", width, dims.codebook_dim)
    return table.specs


class _Table:
    """Collects tensors; an affine layer is a weight with a bias over its first (or given) extent."""

    def __init__(self) -> None:
        self.specs: dict[str, TensorSpec] = {}

    def add(self, name: str, *shape: int) -> None:
        self.specs[name] = TensorSpec(shape)

    def affine(self, name: str, *shape: int, bias: int | None = None) -> None:
        self.add(f"{name}.weight", *shape)
        self.add(f"{name}.bias", shape[0] if bias is None else bias)

    def snake(self, name: str, channels: int) -> None:
        self.add(f"{name}.alpha", 1, channels, 1)

    def residual_units(self, block: str, channels: int) -> None:
        for unit in (1, 2, 3):
            self.snake(f"{block}.res_unit{unit}.snake1", channels)
            self.affine(f"{block}.res_unit{unit}.conv1", channels, channels, 7)
            self.snake(f"{block}.res_unit{unit}.snake2", channels)
            self.affine(f"{block}.res_unit{unit}.conv2", channels, channels, 1)


def _acoustic_encoder(table: _Table, dims: CodecDims) -> None:
    width = dims.encoder_width
    table.affine("acoustic_encoder.conv1", width, 1, 7)
    for index, stride in enumerate(dims.down_strides):
        block = f"acoustic_encoder.block.{index}"
        table.residual_units(block, width)
        table.snake(f"{block}.snake1", width)
        table.affine(f"{block}.conv1", 2 * width, width, 2 * stride)
        width *= 2
    table.snake("acoustic_encoder.snake1", width)
    table.affine("acoustic_encoder.conv2", dims.latent, width, 3)


def _acoustic_decoder(table: _Table, dims: CodecDims) -> None:
    width = dims.decoder_width
    table.affine("acoustic_decoder.conv1", width, dims.latent, 7)
    for index, stride in enumerate(dims.up_strides):
        block = f"acoustic_decoder.block.{index}"
        table.snake(f"{block}.snake1", width)
        # A transposed convolution keeps its inputs first.
        table.affine(f"{block}.conv_t1", width, width // 2, 2 * stride, bias=width // 2)
        width //= 2
        table.residual_units(block, width)
    table.snake("acoustic_decoder.snake1", width)
    table.affine("acoustic_decoder.conv2", 1, width, 7)


def _semantic_coder(table: _Table, dims: CodecDims) -> None:
    hidden = dims.semantic.hidden
    widths = [hidden * ratio for ratio in dims.channel_ratios]
    table.add("encoder_semantic.conv.weight", hidden, hidden, dims.kernel)
    for index, (stride, before, after) in enumerate(
        zip(dims.semantic_strides, [hidden, *widths], widths, strict=False)
    ):
        block = f"encoder_semantic.conv_blocks.{index}"
        _semantic_units(table, block, before, dims)
        table.affine(f"{block}.conv", after, before, 3 if stride == 1 else 2 * stride)
    table.add("decoder_semantic.conv1.weight", widths[0], hidden, dims.kernel)
    for index, (stride, before, after) in enumerate(
        zip(dims.semantic_strides, widths, [*widths[1:], hidden], strict=True)
    ):
        block = f"decoder_semantic.conv_blocks.{index}"
        if stride == 1:
            table.affine(f"{block}.conv", after, before, 3)
        else:
            table.add(f"{block}.conv.weight", before, after, 2 * stride)
        _semantic_units(table, block, after, dims)
    table.add("decoder_semantic.conv2.weight", hidden, hidden, dims.kernel)


def _semantic_units(table: _Table, block: str, channels: int, dims: CodecDims) -> None:
    for unit in range(dims.units):
        table.add(f"{block}.res_units.{unit}.conv1.weight", channels, channels, dims.unit_kernel)
        table.add(f"{block}.res_units.{unit}.conv2.weight", channels, channels, 1)


def _hubert(table: _Table, dims: SemanticDims) -> None:
    before = 1
    for index, (channels, kernel) in enumerate(zip(dims.conv_dims, dims.conv_kernels, strict=True)):
        layer = f"semantic_model.feature_extractor.conv_layers.{index}"
        table.add(f"{layer}.conv.weight", channels, before, kernel)
        if dims.conv_bias:
            table.add(f"{layer}.conv.bias", channels)
        if index == 0 or not dims.group_norm:
            table.affine(f"{layer}.layer_norm", channels)
        before = channels
    hidden = dims.hidden
    if dims.projection_norm:
        table.affine("semantic_model.feature_projection.layer_norm", before)
    table.affine("semantic_model.feature_projection.projection", hidden, before)
    # Weight norm over the taps: gain (original0) and direction (original1).
    position = "semantic_model.encoder.pos_conv_embed.conv"
    table.add(f"{position}.bias", hidden)
    table.add(f"{position}.parametrizations.weight.original0", 1, 1, dims.position_kernel)
    table.add(
        f"{position}.parametrizations.weight.original1", hidden, hidden // dims.position_groups, dims.position_kernel
    )
    table.affine("semantic_model.encoder.layer_norm", hidden)
    for index in range(dims.layers):
        layer = f"semantic_model.encoder.layers.{index}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            table.affine(f"{layer}.attention.{name}", hidden, hidden)
        table.affine(f"{layer}.layer_norm", hidden)
        table.affine(f"{layer}.feed_forward.intermediate_dense", dims.intermediate, hidden)
        table.affine(f"{layer}.feed_forward.output_dense", hidden, dims.intermediate)
        table.affine(f"{layer}.final_layer_norm", hidden)
