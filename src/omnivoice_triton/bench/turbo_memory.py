"""What turbo holds on the GPU for one 5 s utterance, and what its options save or cost.

`python -m omnivoice_triton.bench.turbo memory`. Each variant is a child process (this module), so that nothing of
another lies about; all import at once, then each measures while the others wait. What its CUDA context takes is told
apart (`cuda_context_mb`) and not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from omnivoice_triton.bench.turbo_cases import Row, memory, table_cases
from omnivoice_triton.imports import quick_imports
from omnivoice_triton.speech import InputError, OmniVoiceTritonError

CASE = "en 5 s"
VARIANTS: Mapping[str, tuple[Mapping[str, bool], float | None]] = {
    "default": ({}, 2400.0),
    "no reference encoder": ({"reference_encoder": False}, 1900.0),
    "text embedding on the GPU": ({"host_embedding": False}, None),
    "the same, no reference encoder": ({"reference_encoder": False, "host_embedding": False}, None),
}
"""Name to turbo's options, and the MB that it may hold in 16 bits; None is no aim, for what is there to compare."""
TIMEOUT_S = 300.0
READY = "ready"


def measure(path: Path, dtype: str) -> list[Row]:
    """One row a variant, each in a process of its own."""
    rows: list[Row] = []
    with ExitStack() as stack:
        children = {
            variant: stack.enter_context(_Child(path, dtype, options)) for variant, (options, _) in VARIANTS.items()
        }
        for child in children.values():
            child.wait_until_ready()
        for variant, (_, target_mb) in VARIANTS.items():
            free_mb = _free_mb()
            figures = children[variant].go()
            figures["cuda_context_mb"] = free_mb - figures.pop("free_mb")
            row = {"part": "memory", "mode": "turbo", "dtype": dtype, "variant": variant, **figures}
            if target_mb is not None:
                row |= {"target_mb": target_mb, "on_target": figures["device_used_mb"] <= target_mb}
            rows.append(row)
            print(f"{dtype} {variant}: {figures['device_used_mb']:.0f} MB", file=sys.stderr)
    return rows


class _Child:
    """A process that imports, says so, waits for a line and measures."""

    def __init__(self, path: Path, dtype: str, options: Mapping[str, bool]) -> None:
        command = [sys.executable, "-m", "omnivoice_triton.bench.turbo_memory", str(path), dtype, json.dumps(options)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != READY:
            self._fail()

    def go(self) -> dict[str, float]:
        """Its figures, when it has ended: not before is its memory free."""
        try:
            output, errors = self._process.communicate("go\n", timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"memory: nothing measured after {TIMEOUT_S:g} s") from error
        if self._process.returncode:
            self._fail(errors)
        figures: dict[str, float] = json.loads(output.strip().splitlines()[-1])
        return figures

    def _fail(self, errors: str | None = None) -> None:
        if errors is None:
            errors = self._process.communicate(timeout=TIMEOUT_S)[1]
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"memory: a child ended with {self._process.returncode}: {last}")


def _free_mb() -> float:
    """What is free on the GPU; 0 where there is none."""
    import torch

    return torch.cuda.mem_get_info()[0] / 2**20 if torch.cuda.is_available() else 0.0


def table(rows: Sequence[Row]) -> list[str]:
    """Allocated at the peak, held on the device, and the target."""
    lines = [f"{'dtype':6}{'variant':32}{'peak MB':>9}{'device MB':>11}{'context':>9}{'target':>8}"]
    for row in rows:
        verdict = {True: "met", False: "missed", None: "-"}[row.get("on_target")]
        lines.append(
            f"{row['dtype']:6}{row['variant']:32}{row['peak_vram_mb']:9.0f}{row['device_used_mb']:11.0f}"
            f"{row['cuda_context_mb']:9.0f}{verdict:>8}"
        )
    return lines


def main(argv: list[str] | None = None) -> int:
    """The child: import, wait, measure one variant, tell."""
    parser = argparse.ArgumentParser(description="what one variant of turbo holds on the GPU")
    parser.add_argument("model", type=Path)
    parser.add_argument("dtype")
    parser.add_argument("options", type=json.loads)
    options = parser.parse_args(argv)
    with quick_imports():
        import omnivoice  # noqa: F401
        import torch

        import omnivoice_triton.models.turbo_install  # noqa: F401
    print(READY, flush=True)
    sys.stdin.readline()
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the context is made here, before anything is counted
        free_mb = _free_mb()
        held = memory(options.model, options.dtype, "turbo", {CASE: table_cases()[CASE]}, **options.options)
        print(json.dumps({**held[CASE], "free_mb": free_mb}))
    except OmniVoiceTritonError as error:
        print(f"bench.turbo_memory: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
