"""Noise from a generator of the request's own, so that the global torch RNG is neither read nor moved.

Upstream draws its Gumbel noise by a module-level function, `_gumbel_sample`, from the global RNG. For the time of a
call the model instance gets copies of the two methods that use it, whose globals name our function instead. The
generator yields the very numbers that `torch.manual_seed(seed)` before upstream's generate() would.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from types import FunctionType, MethodType
from typing import Any

import torch

from omnivoice_triton.speech import InputError, UpstreamChanged

_METHODS = ("_generate_iterative", "_predict_tokens_with_scoring")
_NOISE = "_gumbel_sample"


def resolve_seed(seed: Any) -> int:
    """`seed` checked, or a fresh random one (below 2**31, so that it is easy to type again)."""
    if seed is None:
        return secrets.randbits(31)
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        raise InputError(f"seed must be a whole number from 0 to 2**63 - 1, not {seed!r}")
    return int(seed)


def check_upstream(model: Any) -> None:
    """Raise UpstreamChanged unless upstream's loop draws its noise where this module expects it."""
    for name in _METHODS:
        method = getattr(type(model), name, None)
        if not isinstance(method, FunctionType) or _NOISE not in method.__code__.co_names:
            raise UpstreamChanged(f"this omnivoice draws no noise by {_NOISE} in {name}: install omnivoice>=0.2.1,<0.3")


@contextmanager
def seeded(model: Any, seed: int) -> Iterator[None]:
    """Within the block, `model`'s decode loop draws from a generator seeded with `seed`."""
    check_upstream(model)
    if "_generate_iterative" in model.__dict__:
        raise InputError("this model's decode loop is not upstream's: seed it through the handle of what replaced it")
    generator = torch.Generator(device=model.device).manual_seed(seed)

    def gumbel_sample(logits: torch.Tensor, temperature: float) -> torch.Tensor:
        # -log(-log(u + 1e-10) + 1e-10) is upstream's form: the bits must be its own.
        scaled = logits / temperature
        u = torch.empty_like(scaled).uniform_(generator=generator)  # what rand_like does, strides included
        return scaled + -torch.log(-torch.log(u + 1e-10) + 1e-10)

    for name in _METHODS:
        original = getattr(type(model), name)
        copy = FunctionType(
            original.__code__,
            {**original.__globals__, _NOISE: gumbel_sample},
            original.__name__,
            original.__defaults__,
            original.__closure__,
        )
        model.__dict__[name] = MethodType(copy, model)
    try:
        yield
    finally:
        for name in _METHODS:
            model.__dict__.pop(name, None)
