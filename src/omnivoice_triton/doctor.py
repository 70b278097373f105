"""What can run on this machine, and what to do about what can't.

`examine()` finds out, `render()` writes it down for a reader. Nothing is downloaded and no setting is changed; the
random model, where $OMNIVOICE_TRITON_MODEL is `tiny`, is written to the cache, as its first use would.
`keep_bytecode()` alone changes something, and is asked for by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from omnivoice_triton.bytecode import without_bytecode, write_bytecode
from omnivoice_triton.checkpoint import cache_dir, checkpoint_kind, resolve_model
from omnivoice_triton.checkpoint.demo import DEMO
from omnivoice_triton.checkpoint.resolve import BUILT_IN, MODEL_VARIABLE
from omnivoice_triton.config import AUTO, HUB_MODEL_ID, MODES
from omnivoice_triton.speech import InputError, OmniVoiceTritonError

_REQUIRED = ("torch", "torchaudio", "transformers", "soundfile", "omnivoice")

RECOGNISER = "openai/whisper-large-v3-turbo"
"""What upstream transcribes references with."""

_MANY = 200
"""Modules without bytecode that cost a start half a second."""


def examine(environment: dict[str, Any]) -> dict[str, Any]:
    """Everything the doctor knows, as plain data.

    Args:
        environment: from `environment.describe()`.

    Returns:
        `ok` (whether mode base can run), `environment`, `imports` (package -> None or the error), `device` (what `auto`
        means here), `no_gpu` (why there is none), `dtypes` (device -> dtype -> "yes" or a remark), `modes` (name ->
        `runs`, `why`), `auto` (the mode it takes), `model`, `caches`, `without_bytecode` (imported modules that every
        start compiles anew), `extras`.
    """
    imports = {name: import_error(name) for name in _REQUIRED}
    broken = [f"{name} can't be imported ({error})" for name, error in imports.items() if error]
    report: dict[str, Any] = {"ok": False, "environment": environment, "imports": imports}
    if broken:
        why = f"{broken[0]}: install omnivoice-triton again, with torch and torchaudio of one version"
        report |= {"device": None, "no_gpu": None, "dtypes": {}, "auto": None}
        report["modes"] = {name: {"runs": False, "why": why} for name in MODES}
    else:
        from omnivoice_triton.models.availability import best_device, no_gpu_reason

        device = best_device()
        indexed = [f"cuda:{index}" for index in range(len(environment["gpus"]))]
        report |= {"device": device, "no_gpu": None if device == "cuda" else no_gpu_reason()}
        report["dtypes"] = {name: probe_dtypes(name) for name in indexed or ["cpu"]}
        report |= modes_on(device)
    report |= {"model": default_model(), "caches": caches(), "without_bytecode": without_bytecode(), "extras": extras()}
    report["ok"] = bool(report["modes"]["base"]["runs"])
    return report


def keep_bytecode() -> int:
    """Write the bytecode of all that a start of mode turbo imports; returns of how many modules.

    A tiny model of random weights says a word on the CPU, since some modules are imported no sooner.

    Raises:
        InputError: a folder can't be written.
    """
    from omnivoice_triton.models.loading import import_upstream
    from omnivoice_triton.models.runner import BaseRunner

    import_upstream("cpu")
    with BaseRunner("cpu", resolve_model("tiny"), mode="turbo") as runner:
        runner.generate("Hello.", duration=0.2, num_step=1, seed=0)
    try:
        return write_bytecode()
    except OSError as error:
        raise InputError(
            f"{error.filename or error} can't be written: set PYTHONPYCACHEPREFIX to a folder that can, for this and "
            "every start"
        ) from error


def import_error(name: str) -> str | None:
    """One line that says why `name` can't be imported; None if it can."""
    try:
        importlib.import_module(name)
    except Exception as error:  # an extension module may raise anything
        return _one_line(error)
    return None


def modes_on(device: str) -> dict[str, Any]:
    """`modes` (name -> `runs`, `why`) on `device`, and what `auto` takes there."""
    from omnivoice_triton.models.availability import choose, unavailable_reason

    modes: dict[str, dict[str, Any]] = {}
    for mode in MODES.values():
        why = unavailable_reason(mode, device)
        remark = None
        if why is None and mode.made_for_gpu and device == "cpu":
            means = "in Triton's interpreter" if mode.needs_gpu else "by plain PyTorch operations"
            remark = f"{means}: for tests, no faster than base"
        modes[mode.name] = {"runs": why is None, "why": why or remark}
    return {"modes": modes, "auto": choose(AUTO, device).mode.name}


def probe_dtypes(device: str) -> dict[str, str]:
    """What becomes of a small matrix product on `device` in each dtype: `yes`, or what is the matter."""
    import torch

    found = {}
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        try:
            ones = torch.ones(16, 16, dtype=dtype, device=device)
            right = bool(((ones @ ones) == 16).all())
            found[name] = "yes" if right else "no: it computes wrong sums"
        except RuntimeError as error:
            # "no kernel image is available" is a GPU that this torch was not built for.
            found[name] = f"no: {_one_line(error)}"
    if device.startswith("cuda") and found["bf16"] == "yes" and torch.cuda.get_device_capability(device) < (8, 0):
        found["bf16"] = "emulated, slow: use fp16"
    return found


def default_model() -> dict[str, Any]:
    """The model that commands take without `--model`: `name`, `weights`, and `problem` if it can't be used.

    `weights` is what `checkpoint_kind` says, or None where the files aren't here yet; `hub_cached` tells whether
    k2-fsa/OmniVoice is.
    """
    named = os.environ.get(MODEL_VARIABLE) or None
    found: dict[str, Any] = {
        "name": named or DEMO,
        "from": MODEL_VARIABLE if named else None,
        "weights": None,
        "problem": None,
        "hub_cached": hub_cached(HUB_MODEL_ID),
    }
    is_hub_id = (
        named and named not in BUILT_IN and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", named) and not Path(named).exists()
    )
    if is_hub_id and not hub_cached(str(named)):
        found["problem"] = "not on this machine yet: the first use downloads it"
        return found
    try:
        found["weights"] = checkpoint_kind(resolve_model(None))
    except (OmniVoiceTritonError, OSError) as error:
        found["problem"] = _one_line(error)
    return found


def hub_cached(repository: str, file: str = "model.safetensors") -> bool:
    """Whether the weights of a hub repository are in the local cache; asks no network."""
    try:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(repository, file), str)
    except (ImportError, ValueError):  # ValueError: not the form of a hub id
        return False


def caches() -> dict[str, dict[str, Any]]:
    """Where weights and compiled kernels are kept: `path` and `free_gib` on that disk."""
    folders: dict[str, Path] = {}
    with suppress(OmniVoiceTritonError):  # a user without a home directory
        folders["models"] = cache_dir()
    with suppress(ImportError):
        from huggingface_hub.constants import HF_HUB_CACHE

        folders["hub"] = Path(HF_HUB_CACHE)
    folders["triton"] = Path(os.environ.get("TRITON_CACHE_DIR") or Path("~/.triton/cache").expanduser())
    found = {}
    for name, folder in folders.items():
        existing = next((part for part in (folder, *folder.parents) if part.exists()), None)
        free = shutil.disk_usage(existing).free / 2**30 if existing else None
        found[name] = {"path": str(folder), "free_gib": None if free is None else round(free, 1)}
    return found


def extras() -> dict[str, dict[str, Any]]:
    """What is not needed but of use: `here` and `use`, which says what for and how to get it."""
    return {
        "text normalisation": {
            "here": importlib.util.find_spec("tn") is not None,
            "use": "--normalize-text in English and Chinese: pip install 'omnivoice[tn]'",
        },
        "num2words": {
            "here": importlib.util.find_spec("num2words") is not None,
            "use": "--normalize-text in other languages: pip install num2words",
        },
        "ffmpeg": {
            "here": shutil.which("ffmpeg") is not None,
            "use": "reads M4A and AAC references: your system's package ffmpeg",
        },
        "speech recogniser": {
            "here": hub_cached(RECOGNISER),
            "use": f"transcribes a reference given without --ref-text: {RECOGNISER}, downloaded on first use",
        },
    }


def render(report: dict[str, Any]) -> str:
    """The report as lines of text."""
    environment = report["environment"]
    versions = {name: version or "missing" for name, version in environment["versions"].items()}
    if environment["versions"]["cuda"]:
        versions["torch"] += f" (CUDA {versions['cuda']})"
    named = ("omnivoice-triton", "python", "torch", "triton", "transformers", "omnivoice")
    memory = f", {environment['memory_gib']} GiB" if environment["memory_gib"] else ""
    lines = [
        ", ".join(f"{name} {versions[name]}" for name in named),
        f"{environment['os']}, {environment['cpu']['model'] or 'unknown processor'}, "
        f"{environment['cpu']['usable']} cores{memory}",
        "",
        *_device_lines(report),
        "",
        f"Modes on {report['device'] or 'this machine'}",
    ]
    for name, found in report["modes"].items():
        remark = found["why"] or MODES[name].summary
        lines.append(f"  {name:<12} {'runs' if found['runs'] else 'no':<5} {remark}")
    if report["auto"]:
        lines.append(f"  {AUTO:<12} takes {report['auto']}")
    lines += ["", *_model_lines(report["model"]), "", "Caches"]
    for name, cache in report["caches"].items():
        free = "" if cache["free_gib"] is None else f" ({cache['free_gib']} GiB free)"
        lines.append(f"  {name:<12} {cache['path']}{free}")
    if report["without_bytecode"] >= _MANY:
        lines.append(
            f"Bytecode: {report['without_bytecode']} modules have none, so every start compiles them, for seconds: "
            "`omnivoice-triton doctor --bytecode` writes it, once"
        )
    lines.append("Optional")
    lines += [f"  {name:<18} {'yes' if e['here'] else 'no':<5} {e['use']}" for name, e in report["extras"].items()]
    return "\n".join(lines)


def _device_lines(report: dict[str, Any]) -> list[str]:
    lines = []
    for index, gpu in enumerate(report["environment"]["gpus"]):
        capability = ".".join(map(str, gpu["capability"]))
        lines.append(
            f"GPU {index}: {gpu['name']}, compute capability {capability}, "
            f"{gpu['free_gib']} of {gpu['memory_gib']} GiB free, driver {gpu['driver'] or 'unknown'}"
        )
    if not lines:
        lines.append(f"GPU: none ({report['no_gpu'] or 'torch could not be asked'})")
    for device, dtypes in report["dtypes"].items():
        lines.append(f"dtypes on {device}: " + "; ".join(f"{name} {answer}" for name, answer in dtypes.items()))
    return lines


def _model_lines(model: dict[str, Any]) -> list[str]:
    weights = str(model["weights"] or "unknown")
    kinds = {"trained-demo": "the packaged demo voice: small and robotic"}
    kinds |= dict.fromkeys(("random-tiny", "random-full"), "random weights: noise, not speech")
    said = kinds.get(weights, f"{weights} weights")
    origin = f" (from {model['from']})" if model["from"] else ""
    lines = [f"Model: {model['name']}{origin}, {model['problem'] or said}"]
    here = "is in the cache" if model["hub_cached"] else "is downloaded on first use (3.3 GB)"
    lines.append(f"The real one: --model {HUB_MODEL_ID}, which {here}")
    return lines


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
