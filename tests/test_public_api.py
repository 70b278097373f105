"""The names users import: ours, and everything that 0.1.0 published."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import omnivoice_triton
from omnivoice_triton import GenerationOptions

PUBLISHED_0_1_0 = [
    "__version__",
    "TritonRMSNorm",
    "TritonSwiGLU",
    "TritonFusedAddRMSNorm",
    "triton_rms_norm",
    "triton_swiglu_forward",
    "triton_fused_add_rms_norm",
    "BaseRunner",
    "TritonRunner",
    "FasterRunner",
    "TritonFasterRunner",
    "apply_triton_kernels",
    "get_runner_class",
    "create_runner",
    "ALL_RUNNER_NAMES",
]
PUBLISHED_PATHS = {
    "kernels": ["TritonRMSNorm", "triton_swiglu_forward"],
    "kernels.rms_norm": ["TritonRMSNorm", "triton_rms_norm"],
    "kernels.swiglu": ["TritonSwiGLU", "triton_swiglu_forward"],
    "kernels.fused_norm_residual": ["TritonFusedAddRMSNorm", "triton_fused_add_rms_norm"],
    "kernels.utils": ["calculate_settings"],
    "models": ["apply_sage_attention", "apply_triton_kernels", "create_runner"],
    "models.base_runner": ["BaseRunner", "DEFAULT_MODEL_ID", "DEFAULT_SAMPLE_RATE"],
    "models.faster_runner": ["FasterRunner"],
    "models.triton_runner": ["TritonRunner"],
    "models.triton_faster_runner": ["TritonFasterRunner"],
    "models.patching": ["apply_triton_kernels", "apply_sage_attention", "find_patchable_model"],
}


@pytest.mark.parametrize("name", PUBLISHED_0_1_0)
def test_published_name_is_exported(name: str) -> None:
    assert name in omnivoice_triton.__all__
    assert getattr(omnivoice_triton, name) is not None


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in PUBLISHED_PATHS.items() for n in names])
def test_published_import_path(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(f"omnivoice_triton.{module}"), name)


def test_every_exported_name_exists() -> None:
    for name in omnivoice_triton.__all__:
        assert getattr(omnivoice_triton, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = omnivoice_triton.nonsense


def test_modes_are_registered() -> None:
    assert omnivoice_triton.ALL_RUNNER_NAMES[:6] == ["base", "triton", "triton_sage", "faster", "hybrid", "hybrid_sage"]
    assert omnivoice_triton.ALL_RUNNER_NAMES[6:] == ["turbo"]
    for name in omnivoice_triton.ALL_RUNNER_NAMES:
        assert omnivoice_triton.get_runner_class(name).default_mode in ("base", name)


def test_options_are_upstreams_field_for_field() -> None:
    from dataclasses import fields

    from omnivoice import OmniVoiceGenerationConfig

    ours = {f.name: (f.type, f.default) for f in fields(GenerationOptions)}
    theirs = {
        f.name: (f.type if isinstance(f.type, str) else f.type.__name__, f.default)
        for f in fields(OmniVoiceGenerationConfig)
    }
    assert ours == theirs


def test_import_is_cheap() -> None:
    code = (
        "import sys, omnivoice_triton\n"
        "heavy = {'torch', 'triton', 'transformers', 'omnivoice'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
