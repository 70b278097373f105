"""What the judge's training alone needs: its symbols, and how it is written. It is `omnivoice_triton.verify.judge`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from omnivoice_triton.verify.judge import ABOUT, WEIGHTS, Judge, spell


def symbols_of(texts: Sequence[str]) -> list[str]:
    """All symbols of these texts, and every jamo."""
    jamo = [
        chr(code) for start, count in ((0x1100, 19), (0x1161, 21), (0x11A8, 27)) for code in range(start, start + count)
    ]
    return sorted({symbol for text in texts for symbol in spell(text)} | set(jamo))


def save_judge(judge: Judge, directory: Path) -> None:
    """Write judge.safetensors (fp16) and judge.json."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().half().cpu().contiguous() for name, value in judge.state_dict().items()}
    save_file(tensors, directory / WEIGHTS)
    (directory / WEIGHTS).chmod(0o644)
    about = {"symbols": judge.symbols, "width": judge.head.in_features // 2}
    (directory / ABOUT).write_text(json.dumps(about, ensure_ascii=False) + "\n", encoding="utf-8")
