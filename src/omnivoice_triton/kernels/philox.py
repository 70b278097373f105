"""Noise for kernels: uniform numbers of a counter, and Gumbel noise of them.

gumbel = -log(-log(u + 1e-10) + 1e-10), u uniform in [0, 1) with 24 bits: from `philox` (Salmon et al., SC'11, 10
rounds) keyed by the request's seed and counted by (frame, codebook, step, stream), so that a draw depends on nothing
else. Twins in `unmask_reference`.
"""

from __future__ import annotations

import triton.language as tl

from omnivoice_triton.kernels.launch import device_function

POSITION_STREAM = 0
"""Last word of the counter for position noise; id v of class noise has CLASS_STREAM + v."""
CLASS_STREAM = 1


@device_function
def philox_uniform(low, high, frame, codebook, step, stream):
    """First word of Philox4x32-10 as a float in [0, 1) with 24 bits; all arguments int32, any of them a vector."""
    k0 = low.to(tl.uint32, bitcast=True)
    k1 = high.to(tl.uint32, bitcast=True)
    c3 = stream.to(tl.uint32, bitcast=True)
    zero = c3 ^ c3  # the shape of the widest argument
    c0 = frame.to(tl.uint32, bitcast=True) | zero
    c1 = codebook.to(tl.uint32, bitcast=True) | zero
    c2 = step.to(tl.uint32, bitcast=True) | zero
    k0 = k0 | zero
    k1 = k1 | zero
    a = tl.full((1,), 0xD2511F53, tl.uint32) | zero
    b = tl.full((1,), 0xCD9E8D57, tl.uint32) | zero
    for _ in tl.static_range(10):
        high0 = tl.umulhi(a, c0)
        high1 = tl.umulhi(b, c2)
        low0 = a * c0
        low1 = b * c2
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return (c0 >> 8).to(tl.float32) * 5.9604644775390625e-08


@device_function
def gumbel(u):
    """Gumbel noise of uniform `u`, with OmniVoice's guards."""
    return -tl.log(-tl.log(u + 1e-10) + 1e-10)
