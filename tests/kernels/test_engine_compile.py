"""Every packed kernel compiles for compute capability 7.5 and 9.0, within the shared memory and registers of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHARED_BYTES = {75: 64 * 1024, 89: 99 * 1024, 90: 227 * 1024}


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.kernels.engine_compiled"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    made: list[dict[str, Any]] = json.loads(result.stdout)
    return made


def test_every_kernel_was_compiled(compiled: list[dict[str, Any]]) -> None:
    int8 = {"_packed_key_mean_kernel", "_packed_key_quantise_kernel", "_packed_int8_attention_kernel"}
    fp8 = {"_quantise_rows_kernel", "_add_norm_quantise_kernel", "_swiglu_quantise_kernel"}
    for capability in SHARED_BYTES:
        names = {item["kernel"] for item in compiled if item["capability"] == capability}
        assert names >= int8
        assert names & fp8 == (fp8 if capability >= 89 else set())
        if capability == 89:
            continue
        assert names >= {
            "_embed_rows_kernel",
            "_qk_norm_rope_kernel",
            "_varlen_attention_kernel",
            "_packed_add_norm_kernel",
            "_score_kernel",
            "_select_kernel",
            "_split_k_kernel",
            "_gate_up_kernel",
        }
        assert ("_qkv_rope_kernel" in names) == (capability >= 80)


def test_shared_memory_fits(compiled: list[dict[str, Any]]) -> None:
    for item in compiled:
        assert item["shared"] <= SHARED_BYTES[item["capability"]], item


def test_nothing_spills(compiled: list[dict[str, Any]]) -> None:
    for item in compiled:
        assert item["stack"] <= 8, item  # selection keeps a 64-bit bound on the stack


def test_products_run_on_matrix_instructions(compiled: list[dict[str, Any]]) -> None:
    found = {item["kernel"] for item in compiled if item["products"] == "wgmma.mma_async"}
    assert found == {
        "_varlen_attention_kernel",
        "_packed_int8_attention_kernel",
        "_split_k_kernel",
        "_gate_up_kernel",
        "_qkv_rope_kernel",
    }


def test_int8_products_run_on_tensor_cores(compiled: list[dict[str, Any]]) -> None:
    """Of 16-bit models from 8.0 on; Triton left 7.5 to FMA."""
    found = {
        (item["capability"], item["dtype"]): item["int8_products"]
        for item in compiled
        if item["kernel"] == "_packed_int8_attention_kernel"
    }
    assert found == {
        (75, "fp16"): False,
        (75, "fp32"): False,
        (89, "fp16"): True,
        (90, "bf16"): True,
        (90, "fp32"): True,
    }


def test_a_product_is_rounded_before_it_is_added_to(compiled: list[dict[str, Any]]) -> None:
    """As upstream's separate operations do; left to itself the compiler made FMAs of RoPE's products."""
    assert [item["kernel"] for item in compiled if item["contracted"]] == []


def test_fp8_is_rounded_by_the_hardware(compiled: list[dict[str, Any]]) -> None:
    """From 9.0 on once, from fp32; at 8.9 Triton cuts to fp16 before."""
    found = [item for item in compiled if "quantise" in item["kernel"] and "key" not in item["kernel"]]
    assert len(found) == 9
    assert {(item["capability"], item["fp8"]) for item in found} == {(89, "f16x2"), (90, "f32")}


def test_rows_are_read_16_bytes_at_a_time(compiled: list[dict[str, Any]]) -> None:
    rows = {"_embed_rows_kernel", "_qk_norm_rope_kernel", "_packed_add_norm_kernel"}
    rows |= {"_quantise_rows_kernel", "_add_norm_quantise_kernel", "_swiglu_quantise_kernel"}
    assert {(item["kernel"], item["vector_loads"]) for item in compiled if item["kernel"] in rows} == {
        (name, True) for name in rows
    }


def test_kernels_launched_early_wait_for_their_inputs(compiled: list[dict[str, Any]]) -> None:
    """One that doesn't would race with the kernel before it."""
    assert {item["waits"] for item in compiled if item["pdl"]} == {True}
    assert {item["waits"] for item in compiled if not item["pdl"]} == {False}
