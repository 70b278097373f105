"""Tier 1's grid: every kernel with inputs, its twin and a float64 reference, at the shapes that this device can afford.

Kernels are looked up in their modules when a case runs, never bound at import: what is tested is what the package runs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnivoice_triton.engine.layout import Bucket, Placement, pack, row_count
from omnivoice_triton.kernels import tables as t
from omnivoice_triton.kernels.tiles import GemmTile, VarlenTile

PACKAGE = "omnivoice_triton.kernels"
EPS = 1e-6
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_WIDE = torch.float64

Outputs = dict[str, Tensor]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Sizes:
    """How large the grid is: the model's own shapes on a GPU, small ones for the interpreter."""

    rows: tuple[int, ...]
    widths: tuple[int, ...]
    hidden: int
    intermediate: int
    q_heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    codebooks: int
    requests: tuple[tuple[int, int, bool], ...]
    """(prompt rows, frames, guided) of a packed batch."""
    channels: tuple[tuple[int, int, int], ...]
    """(B, C, T) of the codec's activations."""
    gemm: GemmTile
    attention: VarlenTile


GPU = Sizes(
    rows=(1, 65, 290, 1000),
    widths=(77, 1000, 1024, 3072),
    hidden=1024,
    intermediate=3072,
    q_heads=16,
    kv_heads=8,
    head_dim=128,
    vocabulary=1025,
    codebooks=8,
    requests=((1, 1, True), (40, 125, True), (70, 33, False), (9, 64, True)),
    channels=((1, 1, 1), (2, 256, 5000), (1, 33, 40001)),
    gemm=GemmTile(64, 64, 32, 2, 4, 2),
    attention=VarlenTile(16, 32, 4, 1),
)
CPU = Sizes(
    rows=(1, 5),
    widths=(77, 1024),
    hidden=64,
    intermediate=48,
    q_heads=4,
    kv_heads=2,
    head_dim=32,
    vocabulary=33,
    codebooks=3,
    requests=((1, 1, True), (5, 7, True), (3, 2, False)),
    channels=((1, 1, 1), (2, 3, 70)),
    gemm=GemmTile(16, 16, 16, 2, 4, 1),
    attention=VarlenTile(8, 16, 4, 1),
)


@dataclass(frozen=True)
class Case:
    """One kernel at one shape and dtype."""

    kernel: str
    """The launcher's name."""
    shape: str
    dtype: torch.dtype
    run: Callable[[Function], Outputs]
    """Calls a function of the launcher's signature on fresh inputs, returns what it wrote."""
    launcher: Callable[[], Function]
    twin: Function
    exact: Callable[[], Outputs]
    """The result in float64, on the same inputs."""
    slack: float = 1.0
    """Factor on the tolerance against the twin: sums over thousands in another order, quantisation steps."""
    approximation: float = 0.0
    """How far from float64 the twin may be by design (INT8), beyond rounding."""
    multiplies: bool = False
    """Whether it multiplies matrices in its own dtype: Triton's interpreter can't in bfloat16."""


def launchers() -> set[str]:
    """Names of every launcher in the kernels package, found by looking: nobody keeps a list."""
    found: set[str] = set()
    package = importlib.import_module(PACKAGE)
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{PACKAGE}.{info.name}")
        for name, value in vars(module).items():
            ours = inspect.isfunction(value) and value.__module__ == module.__name__
            if ours and (name.startswith(("triton_", "hopper_")) or name == "int8_qk_attention"):
                found.add(name)
    return found


def launcher(module: str, name: str) -> Callable[[], Function]:
    """A getter of one launcher, by name."""

    def get() -> Function:
        function: Function = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
        return function

    return get


def cases(sizes: Sizes, device: str, dtypes: Sequence[torch.dtype] = DTYPES) -> Iterator[Case]:
    """The whole grid."""
    from omnivoice_triton.verify import lossy_grid

    for dtype in dtypes:
        draw = Draw(device, dtype)
        yield from _elementwise(sizes, draw)
        yield from _upstream_heads(sizes, draw)
        yield from _codec(sizes, draw)
        yield from _packed(sizes, draw)
        yield from _gemms(sizes, draw)
        yield from _unmask(sizes, draw)
        yield from lossy_grid.cases(sizes, draw)


class Draw:
    """Random inputs of one dtype; the same seed gives the same values on every device."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def normal(self, seed: int, *shape: int, std: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """Normal values."""
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std
        return values.to(self.device, dtype or self.dtype)

    def hidden(self, seed: int, *shape: int) -> Tensor:
        """Like hidden states of the real weights: std 1, a few channels beyond 12."""
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        values[..., :: max(1, shape[-1] // 4)] *= 13
        return values.to(self.device, self.dtype)

    def norm_weight(self, seed: int, width: int) -> Tensor:
        """1 with a spread of 0.1."""
        values = 1 + 0.1 * torch.randn(width, generator=torch.Generator().manual_seed(seed))
        return values.to(self.device, self.dtype)

    def angles(self, positions: int, dim: int, *, halves: int = 1) -> tuple[Tensor, Tensor]:
        """RoPE's cos and sin, [positions, dim / 2] repeated `halves` times."""
        inverse = 1e6 ** (-torch.arange(0, 1, 2 / dim, dtype=torch.float64))
        angle = (torch.arange(positions, dtype=torch.float64)[:, None] * inverse).repeat(1, halves)
        return angle.cos().to(self.device, self.dtype), angle.sin().to(self.device, self.dtype)


def poison(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """NaN everywhere, so that an element that no kernel wrote shows."""
    return torch.full(shape or like.shape, float("nan"), dtype=dtype or like.dtype, device=like.device)


def wide(*values: Tensor) -> list[Tensor]:
    """In float64."""
    return [value.to(_WIDE) for value in values]


def named(names: Sequence[str], values: Any) -> Outputs:
    """Outputs by name."""
    return dict(zip(names, values if isinstance(values, tuple) else (values,), strict=True))


def _elementwise(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import reference as ref

    plans: tuple[tuple[str, str, Function, tuple[str, ...], bool], ...] = (
        ("rms_norm", "triton_rms_norm", ref.rms_norm, ("y",), True),
        ("swiglu", "triton_swiglu_forward", ref.swiglu, ("y",), False),
        ("fused_norm_residual", "triton_fused_add_rms_norm", ref.add_rms_norm, ("y", "sum"), True),
    )
    for module, name, twin, outputs, has_weight in plans:
        for rows in sizes.rows:
            for width in sizes.widths:
                inputs = [draw.hidden(rows + width, rows, width)]
                if name != "triton_rms_norm":
                    inputs.append(draw.normal(rows * width, rows, width))
                if has_weight:
                    inputs.append(draw.norm_weight(3, width))

                def run(function: Function, inputs: list[Tensor] = inputs, names: Any = outputs) -> Outputs:
                    return named(names, function(*(value.clone() for value in inputs)))

                def exact(inputs: list[Tensor] = inputs, twin: Function = twin, names: Any = outputs) -> Outputs:
                    return named(names, twin(*wide(*inputs)))

                yield Case(name, f"{rows} x {width}", draw.dtype, run, launcher(module, name), twin, exact)


def _upstream_heads(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import reference as ref

    heads, kv, dim = sizes.q_heads, sizes.kv_heads, sizes.head_dim
    for rows in sizes.rows:
        q, k = draw.hidden(rows, 2, rows, heads, dim), draw.hidden(rows + 1, 2, rows, kv, dim)
        cos, sin = (a[None] for a in draw.angles(rows, dim, halves=2))
        inputs = [q, k, draw.norm_weight(1, dim), draw.norm_weight(2, dim), cos, sin]

        def run(function: Function, inputs: list[Tensor] = inputs) -> Outputs:
            return named(("q", "k"), function(*inputs))

        def exact(inputs: list[Tensor] = inputs) -> Outputs:
            q, k, q_weight, k_weight, cos, sin = wide(*inputs)
            return named(("q", "k"), ref.qk_norm_rope(q, k, q_weight, k_weight, cos, sin))

        label = f"2 x {rows}, {heads}/{kv} heads of {dim}"
        get = launcher("rope", "triton_qk_norm_rope")
        yield Case("triton_qk_norm_rope", label, draw.dtype, run, get, ref.qk_norm_rope, exact)

        query, key, value = (draw.normal(rows + i, 2, n, rows, dim) for i, n in enumerate((heads, kv, kv)))
        lengths = torch.tensor([rows, (rows + 1) // 2], dtype=torch.int32, device=draw.device)
        parts = (query, key, value, lengths)

        def attend(function: Function, parts: tuple[Tensor, ...] = parts) -> Outputs:
            return named(("out",), function(*parts))

        def exactly(parts: tuple[Tensor, ...] = parts) -> Outputs:
            q, k, v = wide(*parts[:3])
            return named(("out",), ref.attention(q, k, v, parts[3]))

        get = launcher("attention", "int8_qk_attention")
        # A score on the edge between two INT8 steps may fall either way.
        twin: Function = ref.int8_qk_attention
        yield Case("int8_qk_attention", label, draw.dtype, attend, get, twin, exactly, slack=8.0, approximation=0.02)


def _codec(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import reference as ref

    for batch, channels, samples in sizes.channels:
        x, residual = draw.normal(1, batch, channels, samples, std=3.0), draw.normal(2, batch, channels, samples)
        # As in the checkpoint: 1 with a spread of 0.2.
        alpha = (1 + 0.2 * draw.normal(3, channels, dtype=torch.float32)).abs().clamp_min(0.05)
        bias = draw.normal(4, channels, dtype=torch.float32)
        lengths = torch.full((batch,), max(1, samples - 3), dtype=torch.int32, device=draw.device)
        keywords = {"bias": bias, "residual": residual, "lengths": lengths}
        for name, twin, outputs in (
            ("triton_snake", ref.snake, ("y",)),
            ("triton_add_snake", ref.add_snake, ("sum", "y")),
        ):

            def run(
                function: Function, x: Tensor = x, alpha: Tensor = alpha, kw: Any = keywords, names: Any = outputs
            ) -> Outputs:
                return named(names, function(x, alpha, **kw))

            def exact(
                x: Tensor = x, alpha: Tensor = alpha, kw: Any = keywords, twin: Any = twin, names: Any = outputs
            ) -> Outputs:
                double = {key: value if key == "lengths" else value.double() for key, value in kw.items()}
                return named(names, twin(x.double(), alpha.double(), **double))

            label = f"{batch} x {channels} x {samples}"
            # sin^2 is our own polynomial: an ulp or two away from torch's.
            yield Case(name, label, draw.dtype, run, launcher("snake", name), twin, exact, slack=2.0)


class Packed:
    """Tables of one packed batch on the device, its rows shuffled so that an index taken for another is seen."""

    def __init__(self, sizes: Sizes, device: str, tile_rows: int, spare_rows: int = 5) -> None:
        rng = np.random.default_rng(0)
        prompts = rng.permutation(sum(r[0] for r in sizes.requests) + 3).astype(np.int32)
        frames = rng.permutation(sum(r[1] for r in sizes.requests) + 3).astype(np.int32)
        slots = rng.permutation(len(sizes.requests) + 2)
        self.placements = []
        for (n_prompt, n_frames, guided), slot in zip(sizes.requests, slots, strict=False):
            self.placements.append(Placement(int(slot), prompts[:n_prompt], frames[:n_frames], guided))
            prompts, frames = prompts[n_prompt:], frames[n_frames:]
        self.used_rows = sum(row_count(*r) for r in sizes.requests)
        self.rows = self.used_rows + spare_rows
        self.prompt_rows = sum(r[0] for r in sizes.requests) + 3
        self.canvas_rows = sum(r[1] for r in sizes.requests) + 3
        self.targets = sum(r[1] for r in sizes.requests)
        self.slots = len(sizes.requests) + 2
        self.longest = max(p + f for p, f, _ in sizes.requests)
        bucket = Bucket(self.rows, len(sizes.requests) + 1, tile_rows)
        flat = torch.from_numpy(pack(self.placements, bucket).flat).to(device)
        self.tables = {
            name: flat[offset : offset + int(np.prod(shape))].view(shape)
            for name, (offset, shape) in bucket.spans.items()
        }

    @property
    def label(self) -> str:
        """Rows and requests."""
        return f"{self.used_rows} packed rows of {len(self.placements)} requests"


def _packed(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import engine_reference as ref

    hidden, heads, kv, dim = sizes.hidden, sizes.q_heads, sizes.kv_heads, sizes.head_dim
    packed = Packed(sizes, draw.device, sizes.attention.rows)
    rows = packed.tables["rows"]
    canvas = torch.randint(
        0, sizes.vocabulary, (packed.canvas_rows, sizes.codebooks), generator=torch.Generator().manual_seed(0)
    )
    canvas = canvas.to(draw.device, torch.int32)
    prompt, table = (
        draw.normal(1, packed.prompt_rows, hidden),
        draw.normal(2, sizes.codebooks * sizes.vocabulary, hidden),
    )
    weight = draw.norm_weight(3, hidden)

    def embed(function: Function, parts: tuple[Tensor, ...] = (prompt, table, weight)) -> Outputs:
        source, codes, gain = parts
        x, y = (poison(source, packed.rows, hidden) for _ in range(2))
        function(rows, source, canvas, codes, gain, EPS, x=x, y=y)
        return {"x": x, "y": y}

    def embed_exactly() -> Outputs:
        return embed(ref.embed_rows, tuple(wide(prompt, table, weight)))

    get = launcher("embed", "triton_embed_rows")
    yield Case("triton_embed_rows", packed.label, draw.dtype, embed, get, ref.embed_rows, embed_exactly, slack=2.0)

    qkv = draw.hidden(4, packed.rows, (heads + 2 * kv) * dim)
    cos, sin = draw.angles(packed.longest, dim)
    norms = (draw.norm_weight(5, dim), draw.norm_weight(6, dim))
    shape = {"q_heads": heads, "kv_heads": kv}
    label = f"{packed.label}, {heads}/{kv} heads of {dim}"

    def rotate(function: Function, parts: tuple[Tensor, ...] = (qkv, cos, sin, *norms)) -> Outputs:
        out = parts[0].clone()
        function(out, rows, *parts[1:], EPS, **shape)
        return {"qkv": out}

    def rotate_exactly() -> Outputs:
        return rotate(ref.qk_norm_rope_packed, tuple(wide(qkv, cos, sin, *norms)))

    get = launcher("qkv", "triton_qk_norm_rope_packed")
    twin: Function = ref.qk_norm_rope_packed
    yield Case("triton_qk_norm_rope_packed", label, draw.dtype, rotate, get, twin, rotate_exactly)

    normal = draw.normal(7, packed.rows, (heads + 2 * kv) * dim)
    normal[packed.used_rows :] = float("nan")  # padding must not be attended

    def attend(function: Function, x: Tensor = normal) -> Outputs:
        out = poison(x, packed.rows, heads * dim)
        function(x, packed.tables["tiles"], **shape, scale=dim**-0.5, tile=sizes.attention, out=out)
        return {"out": out[: packed.used_rows]}

    def attend_exactly() -> Outputs:
        return attend(ref.varlen_attention, normal.to(_WIDE))

    get = launcher("varlen_attention", "triton_varlen_attention")
    twin = ref.varlen_attention
    yield Case(
        "triton_varlen_attention", label, draw.dtype, attend, get, twin, attend_exactly, slack=4.0, multiplies=True
    )

    pick = packed.tables["heads"]
    for partials in (0, 3):
        residual = draw.hidden(8, packed.rows, hidden)
        delta = draw.normal(9, packed.rows, hidden)
        if partials:
            delta = draw.normal(9, partials, packed.rows, hidden, dtype=torch.float32)
        for picked in (False, True):

            def add(
                function: Function,
                parts: tuple[Tensor, ...] = (delta, residual, weight),
                picked: bool = picked,
            ) -> Outputs:
                total, y = parts[1].clone(), poison(parts[1])
                function(parts[0], total, parts[2], EPS, y=y, pick=pick if picked else None)
                return {"residual": total, "y": y}

            def add_exactly(
                add: Any = add, parts: tuple[Tensor, ...] = (delta, residual, weight), picked: bool = picked
            ) -> Outputs:
                done: Outputs = add(ref.packed_add_norm, tuple(wide(*parts)), picked)
                return done

            get = launcher("packed_norm", "triton_packed_add_norm")
            what = f"{packed.rows} x {hidden}, {partials or 'no'} partial sums{', picked' if picked else ''}"
            yield Case("triton_packed_add_norm", what, draw.dtype, add, get, ref.packed_add_norm, add_exactly)


def _gemms(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import engine_reference as ref

    tile, hidden, middle = sizes.gemm, sizes.hidden, sizes.intermediate
    heads, kv, dim = sizes.q_heads, sizes.kv_heads, sizes.head_dim
    for rows in (1, sizes.rows[-1]):
        for swiglu in (False, True):
            x = draw.normal(1, rows, 2 * middle if swiglu else middle)
            weight = draw.normal(2, hidden, middle, std=middle**-0.5)

            def split(
                function: Function, x: Tensor = x, weight: Tensor = weight, rows: int = rows, swiglu: bool = swiglu
            ) -> Outputs:
                out = poison(x, tile.splits, rows, hidden, dtype=torch.float32)
                function(x, weight, tile, partials=out, swiglu=swiglu)
                return {"partials": out}

            def split_exactly(x: Tensor = x, weight: Tensor = weight, swiglu: bool = swiglu) -> Outputs:
                w = weight.to(_WIDE)
                a = x.to(_WIDE)
                if swiglu:
                    gate, up = a.chunk(2, dim=-1)
                    a = torch.nn.functional.silu(gate) * up
                chunk = -(-a.shape[1] // tile.splits)
                at = [slice(p * chunk, (p + 1) * chunk) for p in range(tile.splits)]
                return {"partials": torch.stack([a[:, s] @ w[:, s].T for s in at])}

            label = f"{rows} x {hidden} x {middle}, {tile.splits} sums{', SwiGLU in' if swiglu else ''}"
            get = launcher("split_k", "triton_split_k")
            yield Case(
                "triton_split_k", label, draw.dtype, split, get, ref.split_k, split_exactly, slack=4.0, multiplies=True
            )

        x = draw.normal(3, rows, hidden)
        both = draw.normal(4, 2 * middle, hidden, std=hidden**-0.5)

        def gate_up(function: Function, x: Tensor = x, both: Tensor = both, rows: int = rows) -> Outputs:
            out = poison(x, rows, middle)
            function(x, both, tile._replace(splits=1), out=out)
            return {"out": out}

        def gate_up_exactly(gate_up: Any = gate_up, x: Tensor = x, both: Tensor = both) -> Outputs:
            done: Outputs = gate_up(ref.gate_up, *wide(x, both))
            return done

        label = f"{rows} x {2 * middle} x {hidden}"
        get = launcher("gate_up", "triton_gate_up")
        yield Case(
            "triton_gate_up", label, draw.dtype, gate_up, get, ref.gate_up, gate_up_exactly, slack=4.0, multiplies=True
        )

    packed = Packed(sizes, draw.device, sizes.attention.rows)
    x = draw.normal(5, packed.rows, hidden)
    weight = draw.normal(6, (heads + 2 * kv) * dim, hidden, std=hidden**-0.5)
    cos, sin = draw.angles(packed.longest, dim)
    norms = (draw.norm_weight(7, dim), draw.norm_weight(8, dim))

    def project(function: Function, parts: tuple[Tensor, ...] = (x, weight, cos, sin, *norms)) -> Outputs:
        out = poison(parts[0], packed.rows, (heads + 2 * kv) * dim)
        function(
            *parts[:2],
            packed.tables["rows"],
            *parts[2:],
            EPS,
            tile._replace(block_n=0, splits=1),
            q_heads=heads,
            kv_heads=kv,
            qkv=out,
        )
        return {"qkv": out}

    def project_exactly() -> Outputs:
        return project(ref.qkv_rope, tuple(wide(x, weight, cos, sin, *norms)))

    label = f"{packed.rows} x {weight.shape[0]} x {hidden}"
    get = launcher("qkv_rope", "triton_qkv_rope")
    yield Case(
        "triton_qkv_rope", label, draw.dtype, project, get, ref.qkv_rope, project_exactly, slack=4.0, multiplies=True
    )


def _unmask(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import unmask_reference as ref

    packed = Packed(sizes, draw.device, sizes.attention.rows)
    codebooks, vocabulary = sizes.codebooks, sizes.vocabulary
    logits = draw.normal(1, packed.rows, codebooks * vocabulary, std=4.0)
    mask_id = vocabulary - 1
    canvas = torch.full((packed.canvas_rows, codebooks), mask_id, dtype=torch.int32, device=draw.device)
    canvas[packed.placements[-1].frames[0]] = 3  # decided
    targets, items = packed.tables["targets"], packed.tables["items"]
    uniforms = {
        "position_uniforms": torch.rand(packed.rows, codebooks, generator=torch.Generator().manual_seed(2)),
        "class_uniforms": torch.rand(packed.rows, codebooks, vocabulary, generator=torch.Generator().manual_seed(3)),
    }
    uniforms = {name: value.to(draw.device) for name, value in uniforms.items()}
    used = packed.targets
    for step, noise, buffers in ((0, "philox", {}), (3, "philox", {}), (1, "drawn outside", uniforms)):
        slots = slot_table(packed.slots, draw.device, step=step)

        def score(function: Function, slots: Tensor = slots, buffers: Any = buffers) -> Outputs:
            tokens = torch.full((packed.rows, codebooks), -7, dtype=torch.int32, device=draw.device)
            scores = poison(tokens, packed.rows, codebooks, dtype=torch.float32)
            function(logits, targets, canvas, slots, tokens=tokens, scores=scores, **buffers)
            return {"tokens": tokens[:used], "scores": scores[:used]}

        def score_exactly(slots: Tensor = slots, buffers: Any = buffers, step: int = step) -> Outputs:
            return _score_exactly(packed, logits, canvas, slots, step, codebooks, buffers)

        label = f"{used} frames x {codebooks} x {vocabulary}, step {step}, noise {noise}"
        get = launcher("score_cells", "triton_score_cells")
        yield Case("triton_score_cells", label, draw.dtype, score, get, ref.score_cells, score_exactly)

    if draw.dtype is not torch.float32:
        return  # scores are fp32 whatever the dtype
    for count in (1, 7, 10**6):
        slots = slot_table(packed.slots, draw.device, step=1, count=count)
        scores = draw.normal(5, packed.rows, codebooks).mul(4).round().div(4)  # with ties
        scores[:used][canvas[targets[:used, t.TARGET_FRAME].long()] != mask_id] = float("-inf")
        tokens = torch.randint(0, mask_id, scores.shape, generator=torch.Generator().manual_seed(6))
        tokens = tokens.to(draw.device, torch.int32)

        def select(
            function: Function, slots: Tensor = slots, scores: Tensor = scores, tokens: Tensor = tokens
        ) -> Outputs:
            board, state = canvas.clone(), slots.clone()
            function(items, targets, tokens, scores, canvas=board, slots=state)
            return {"canvas": board, "slots": state}

        def select_exactly(
            select: Any = select, slots: Tensor = slots, scores: Tensor = scores, tokens: Tensor = tokens
        ) -> Outputs:
            done: Outputs = select(ref.select_cells, slots, scores.to(_WIDE), tokens)
            return done

        label = f"{used} frames x {codebooks}, {count} a step"
        get = launcher("select_cells", "triton_select_cells")
        yield Case("triton_select_cells", label, draw.dtype, select, get, ref.select_cells, select_exactly)


def slot_table(slots: int, device: str, *, step: int, steps: int = 8, count: int = 5, window: int = 8) -> Tensor:
    """A slot table: guidance 2, penalty 5, position temperature 5, a seed of its own in every row."""
    rows = torch.zeros(slots, t.SLOT_HEADER + window, dtype=torch.int32)
    rows[:, t.SLOT_STEP], rows[:, t.SLOT_STEPS] = step, steps
    rows[:, t.SLOT_SEED_LOW], rows[:, t.SLOT_SEED_HIGH] = torch.arange(slots) + 11, torch.arange(slots) * 7 - 3
    floats = rows.view(torch.float32)
    floats[:, t.SLOT_GUIDANCE], floats[:, t.SLOT_PENALTY], floats[:, t.SLOT_POSITION_TEMPERATURE] = 2.0, 5.0, 5.0
    rows[:, t.SLOT_HEADER :] = count
    return rows.to(device)


def _score_exactly(
    packed: Packed, logits: Tensor, canvas: Tensor, slots: Tensor, step: int, codebooks: int, uniforms: Any
) -> Outputs:
    """OmniVoice's own formulas in float64: three log-softmaxes, the mask id out of the choice but not of the sum."""
    from omnivoice_triton.kernels import unmask_reference as ref

    z = logits.to(_WIDE).view(packed.rows, codebooks, -1)
    mask_id = z.shape[-1] - 1
    tokens, scores = [], []
    targets = packed.tables["targets"]
    first = 0
    for place in packed.placements:
        run = targets[first : first + len(place.frames)].long()
        log_p = z[run[:, t.TARGET_COND]].log_softmax(-1)
        if place.guided:
            free = z[run[:, t.TARGET_UNCOND]].log_softmax(-1)
            log_p = (log_p + 2.0 * (log_p - free)).log_softmax(-1)
        log_p = log_p[..., :mask_id]
        codebook = torch.arange(codebooks, device=z.device)
        if uniforms:
            u = uniforms["position_uniforms"][first : first + len(place.frames)]
        else:
            low, high = slots[place.slot, [t.SLOT_SEED_LOW, t.SLOT_SEED_HIGH]].tolist()
            frame = run[:, t.TARGET_LOCAL].view(-1, 1)
            u = ref.philox_uniform(low, high, frame, codebook, step, torch.zeros_like(codebook))
        score = (log_p.amax(-1) - 5.0 * codebook) / 5.0 + ref.gumbel(u.float()).to(_WIDE)
        undecided = canvas[run[:, t.TARGET_FRAME]] == mask_id
        scores.append(torch.where(undecided, score, float("-inf")))
        tokens.append(torch.where(undecided, log_p.argmax(-1), -7))
        first += len(place.frames)
    return {"tokens": torch.cat(tokens), "scores": torch.cat(scores)}
