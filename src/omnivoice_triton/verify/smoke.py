"""Tier 3, quick: every mode speaks in every voice. `python -m omnivoice_triton.verify.smoke`

With random weights nothing can be understood, so this checks what still means something: finite sound of the right
length, not silent, the same bits for the same seed, the mode's own path really taken (graphs replayed, INT8 kernel
launched, layers patched), and how many of base's tokens come out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnivoice_triton.commands import MODEL_HELP, Parser, command
from omnivoice_triton.config import MODES
from omnivoice_triton.evidence import check_outputs, default_model, write_json
from omnivoice_triton.models.availability import check_device, unavailable_reason
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError, Speech
from omnivoice_triton.verify.outcome import raised

SENTENCE = {"text": "Hello, welcome to the OmniVoice text-to-speech system.", "language": "English"}


def voices(seconds: float) -> dict[str, dict[str, Any]]:
    """Keywords of generate() for each of the three ways to choose a voice."""
    t = np.arange(3 * 24_000) / 24_000
    tone = (0.3 * np.sin(2 * np.pi * 150 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)
    common = {**SENTENCE, "duration": seconds}
    return {
        "auto": common,
        "clone": {**common, "ref_audio": (tone, 24_000), "ref_text": "A steady tone."},
        "design": {**common, "instruct": "female, high pitch"},
    }


def check(speech: Speech, again: Speech, seconds: float) -> list[str]:
    """What is wrong with a result, in words."""
    wrong = []
    if not speech.audio.size:
        wrong.append("no samples")
    elif not np.isfinite(speech.audio).all():
        wrong.append("not finite")
    elif np.abs(speech.audio).max() < 0.01:
        wrong.append("silent")
    if not 0.2 * seconds <= speech.audio_s <= seconds + 0.5:
        wrong.append(f"{speech.audio_s:.2f} s instead of {seconds:g}")
    if not np.array_equal(speech.audio, again.audio):
        wrong.append("same seed, other bits")
    return wrong


def path_taken(runner: BaseRunner) -> list[str]:
    """What of the mode did not happen."""
    from omnivoice_triton.models.seam import row_lengths_hook

    acceleration = runner.acceleration
    assert acceleration is not None
    missing = []
    if runner.mode.triton and not acceleration.counts.get("SwiGLU"):
        missing.append("no layer patched")
    if runner.mode.graph and not (acceleration.graphs and acceleration.graphs.replays):
        missing.append("no graph replayed")
    if runner.mode.engine and not (acceleration.turbo and acceleration.turbo.engine.runner.graphs.replays):
        missing.append("the engine ran no step")
    if runner.mode.engine and str(runner.device).startswith("cuda"):
        codec = acceleration.turbo.codec if acceleration.turbo else None
        if not getattr(codec, "replays", 0):
            missing.append("no codec graph replayed")
    if runner.mode.int8_qk and row_lengths_hook(runner.model.llm) is None:
        missing.append("no INT8 attention installed")
    return missing


def run_mode(path: Path, mode: str, device: str, dtype: str, seconds: float, steps: int) -> list[dict[str, Any]]:
    """One row a voice."""
    rows: list[dict[str, Any]] = []
    said = voices(seconds)
    try:
        with BaseRunner(device=device, model_id=path, dtype=dtype, mode=mode) as runner:
            for voice, keywords in said.items():
                speech, again = (runner.generate(seed=1, num_step=steps, **keywords) for _ in range(2))
                wrong = check(speech, again, seconds) + path_taken(runner)
                rows.append(
                    {
                        "mode": mode,
                        "voice": voice,
                        "dtype": str(runner.dtype).removeprefix("torch."),
                        "audio_s": speech.audio_s,
                        "warm_ms": again.time_ms,
                        "peak": float(np.abs(speech.audio).max(initial=0.0)),
                        "passed": not wrong,
                        "problems": wrong,
                    }
                )
    except InputError:
        raise  # what was asked for can't be done: no finding about the mode
    except Exception as error:
        voice = list(said)[len(rows)] if len(rows) < len(said) else "end"
        rows.append({"mode": mode, "voice": voice, "dtype": dtype, "passed": False, "problems": [raised(error)]})
    return rows


@command("verify.smoke")
def main(argv: Sequence[str] | None = None) -> int:
    """Speak, print a table, write JSON; exit code 1 if anything is wrong or nothing ran."""
    parser = Parser(prog="omnivoice-triton verify smoke", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=None, help=MODEL_HELP)
    parser.add_argument("--modes", nargs="+", default=None, choices=list(MODES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    if options.steps < 1:
        raise InputError(f"--steps must be at least 1, not {options.steps}")
    if not 0.1 <= options.seconds <= 60:
        raise InputError(f"--seconds must be 0.1 to 60, not {options.seconds}")
    check_outputs(options.json)
    device = check_device(options.device)
    path = default_model(options.model, device)
    modes = options.modes or [name for name, mode in MODES.items() if unavailable_reason(mode, device) is None]
    rows = [
        row for mode in modes for row in run_mode(path, mode, device, options.dtype, options.seconds, options.steps)
    ]
    write_json(options.json, "smoke", path, {"results": rows})
    for row in rows:
        verdict = "PASS" if row["passed"] else f"FAIL ({'; '.join(row['problems'])})"
        took = f"{row['audio_s']:.2f} s in {row['warm_ms']:.0f} ms" if "audio_s" in row else "-"
        print(f"{row['mode']:12} {row['voice']:7} {took}  {verdict}")
    if not rows:
        print("FAIL: nothing ran")
    return 0 if rows and all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
