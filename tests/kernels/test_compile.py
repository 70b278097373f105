"""Every kernel compiles for compute capability 7.5 and 9.0, within the shared memory and registers of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHARED_BYTES = {75: 64 * 1024, 90: 227 * 1024}


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compiled"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def test_every_kernel_was_compiled(compiled: list[dict[str, Any]]) -> None:
    for capability in SHARED_BYTES:
        names = {item["kernel"] for item in compiled if item["capability"] == capability}
        assert names == {
            "_rms_norm_kernel",
            "_add_rms_norm_kernel",
            "_swiglu_kernel",
            "_qk_norm_rope_kernel",
            "_quantise_keys_kernel",
            "_int8_attention_kernel",
        }


def test_shared_memory_fits(compiled: list[dict[str, Any]]) -> None:
    for item in compiled:
        assert item["shared"] <= SHARED_BYTES[item["capability"]], item


def test_nothing_spills(compiled: list[dict[str, Any]]) -> None:
    for item in compiled:
        assert item["stack"] == 0, item


def test_rows_are_read_16_bytes_at_a_time_by_few_registers(compiled: list[dict[str, Any]]) -> None:
    small = [item for item in compiled if "attention" not in item["kernel"] and "quantise" not in item["kernel"]]
    assert small
    for item in small:
        assert item["vector_loads"], item
        assert item["registers"] <= 64, item


def test_queries_meet_keys_in_int8(compiled: list[dict[str, Any]]) -> None:
    products = {(item["capability"], item["int8_products"]) for item in compiled if "_int8_" in item["kernel"]}
    assert products == {(90, True), (75, False)}
