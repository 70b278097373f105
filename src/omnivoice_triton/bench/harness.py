"""What the end-to-end benchmarks share: sentences and command-line options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.commands import MODEL_HELP, Parser, whole

DTYPES = ("fp16", "bf16", "fp32")
SENTENCES = {
    "ko": ("Korean", "안녕하세요, 옴니보이스 음성 합성 시스템에 오신 것을 환영합니다."),
    "en": ("English", "Hello, welcome to the OmniVoice text-to-speech system."),
    "zh": ("Chinese", "你好，欢迎使用全能语音合成系统。"),
}
"""One short sentence a language: (name that upstream knows, text)."""


def arguments(name: str, description: str, runs: int = 10) -> Parser:
    """Options that every benchmark takes; `name` is the benchmark's."""
    parser = Parser(prog=f"omnivoice-triton bench {name}", description=description)
    parser.add_argument("--model", default=None, help=MODEL_HELP)
    parser.add_argument("--dtypes", nargs="+", default=["fp16", "bf16"], choices=DTYPES)
    parser.add_argument("--runs", type=whole(1), default=runs, help="warm runs a case")
    parser.add_argument("--json", type=Path, default=None, help="write every figure to this file")
    return parser


def reference_voice(runner: Any) -> Any:
    """A prompt of 5 s of noise: what it sounds like does not change what it costs."""
    noise = (np.random.default_rng(0).standard_normal(5 * 24_000) * 0.1).astype(np.float32)
    return runner.create_voice((noise, 24_000), "This is what I said, and it took about five seconds.")
