"""The side of `bench peers` that runs another omnivoice_triton: a process of its own, told what to say line by line.

    python peer_child.py FOLDER MODEL DTYPE MODE

It imports `omnivoice_triton` from FOLDER, not this one, and nothing else of ours. Requests and answers are JSON, one a
line; what libraries print goes to standard error. The clock is that of the other paths: around generate(), the device
synchronised on both sides.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO


def load(folder: str, model: str, dtype: str, mode: str) -> tuple[Any, str]:
    """The upstream model as that package has patched it, and the package's version.

    Raises:
        ImportError: FOLDER holds no omnivoice_triton, or another one was found first.
    """
    sys.path.insert(0, folder)
    package = importlib.import_module("omnivoice_triton")
    found = Path(str(package.__file__)).resolve()
    if not found.is_relative_to(Path(folder).resolve()):
        raise ImportError(f"{folder} holds no omnivoice_triton")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    runner = package.create_runner(mode, device=device, model_id=model, dtype=dtype)
    runner.load_model()
    return runner.model, str(package.__version__)


def speak(model: Any, seed: int, keywords: dict[str, Any]) -> dict[str, Any]:
    """One call of generate(): seconds, samples of each text, peak memory in GiB."""
    import torch

    if "voice_file" in keywords:
        prompt = importlib.import_module("omnivoice").VoiceClonePrompt
        keywords["voice_clone_prompt"] = prompt.load(keywords.pop("voice_file"), map_location=str(model.device))
    torch.manual_seed(seed)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = time.perf_counter()
    audios = model.generate(**keywords)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    peak_gb = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    return {"seconds": seconds, "samples": [len(audio) for audio in audios], "peak_gb": peak_gb}


def answer(lines: TextIO, reply: TextIO, arguments: list[str]) -> None:
    """Load, say so, and answer every line until there are no more."""

    def tell(message: dict[str, Any]) -> None:
        reply.write(json.dumps(message) + "\n")
        reply.flush()

    try:
        model, version = load(*arguments)
    except Exception as error:  # told to the parent, which reports it
        tell({"error": f"{type(error).__name__}: {error}"})
        return
    tell({"version": version, "rate": int(model.sampling_rate)})
    for line in lines:
        request = json.loads(line)
        try:
            tell(speak(model, request["seed"], request["keywords"]))
        except Exception as error:
            tell({"error": f"{type(error).__name__}: {error}"})


def main() -> None:
    """Keep standard output for answers, and this folder's modules out of the other package's way."""
    own = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != own]
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answer(sys.stdin, reply, sys.argv[1:])
    except KeyboardInterrupt:  # it reaches the parent too, which says so
        sys.exit(130)


if __name__ == "__main__":
    main()
