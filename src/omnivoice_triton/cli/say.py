"""`omnivoice-triton say`: one text, one audio file."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnivoice_triton.cli.console import Console
from omnivoice_triton.cli.flags import Switch, add_flag, add_generation_options, generation_options
from omnivoice_triton.cli.text import add_text_arguments, read_text
from omnivoice_triton.config import (
    AUTO,
    DEFAULT_GRAPH_BUDGET_MB,
    HUB_MODEL_ID,
    MODES,
    GenerationOptions,
    check_duration,
    check_speed,
    get_mode,
)
from omnivoice_triton.imports import quick_imports
from omnivoice_triton.speech import InputError

if TYPE_CHECKING:
    from omnivoice_triton.models.runner import BaseRunner
    from omnivoice_triton.speech import Speech


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `say`."""
    parser.usage = "omnivoice-triton say (TEXT | - | --file FILE) -o FILE [flags]"
    parser.epilog = "Flags may also be written as upstream writes them: --num_step, --ref_audio, --text."
    add_text_arguments(parser)
    add_flag(parser, "-o", "--output", required=True, metavar="FILE", help="audio file; .wav, .flac, .ogg, .mp3, …")

    machine = parser.add_argument_group("model and machine")
    names = ", ".join((*MODES, AUTO))
    add_flag(machine, "--mode", default=AUTO, help=f"one of {names} (default: %(default)s, the fastest that runs here)")
    add_flag(
        machine,
        "--model",
        metavar="ID|DIR",
        help=f"hub id, such as {HUB_MODEL_ID}, or directory (default: $OMNIVOICE_TRITON_MODEL or the demo voice)",
    )
    add_flag(machine, "--device", default=AUTO, help="auto, cpu, cuda, cuda:1, … (default: %(default)s)")
    add_flag(machine, "--dtype", default=AUTO, help="fp16, bf16 or fp32 (default: fp16 on a GPU, fp32 on a CPU)")
    add_flag(
        machine,
        "--graph-budget-mb",
        type=int,
        default=DEFAULT_GRAPH_BUDGET_MB,
        metavar="MB",
        help="GPU memory that captured graphs may hold (default: %(default)s)",
    )

    voice = parser.add_argument_group("voice", "A voice of the model's choice, a cloned one or a designed one.")
    add_flag(voice, "--language", help="name or code, such as English or en")
    add_flag(voice, "--instruct", metavar="ATTRIBUTES", help="design a voice: 'female, young adult, high pitch'")
    add_flag(voice, "--ref-audio", metavar="FILE", help="clone the voice of this recording (3 to 10 s)")
    add_flag(
        voice, "--ref-text", metavar="TEXT", help="what is said in it; without, a recogniser listens (big download)"
    )
    add_flag(voice, "--voice", metavar="FILE", help="a voice saved by --save-voice")
    add_flag(voice, "--save-voice", metavar="FILE", help="keep the encoded reference, for --voice")

    speech = parser.add_argument_group("speech")
    add_flag(speech, "--seed", type=int, metavar="N", help="same seed, same audio (default: random, and reported)")
    add_flag(speech, "--duration", type=float, metavar="S", help="seconds of speech, instead of the estimate")
    add_flag(speech, "--speed", type=float, metavar="X", help="factor on the estimated pace; above 1 is faster")
    add_flag(
        speech,
        "--normalize-text",
        action=Switch,
        default=False,
        help="spell out numbers and dates (needs omnivoice[tn])",
    )
    add_generation_options(parser.add_argument_group("generation"))

    report = parser.add_argument_group("report")
    add_flag(report, "--json", action="store_true", help="print one line of JSON instead of the summary")
    add_flag(report, "--quiet", action="store_true", help="print nothing but errors (and what --json prints)")


@dataclass(frozen=True)
class Job:
    """What to do, checked as far as it can be without torch."""

    text: str
    output: Path
    options: GenerationOptions


def run(args: argparse.Namespace) -> int:
    """Say it, write the file, report."""
    job = check(args)
    console = Console(quiet=args.quiet, json=args.json)
    with console.calm():
        record = say(args, job, console)
    if args.json:
        print(json.dumps(record))
    elif not args.quiet:
        print(summary(record))
    return 0


def check(args: argparse.Namespace) -> Job:
    """Find what is wrong with the request before anything slow happens.

    Raises:
        InputError: with one line that says what to change.
    """
    from omnivoice_triton.audio_files import check_output_path, check_writable

    check_voice_flags(args)
    options = generation_options(args)
    check_duration(args.duration)
    check_speed(args.speed)
    if args.graph_budget_mb < 1:
        raise InputError(f"--graph-budget-mb must be at least 1, not {args.graph_budget_mb}")
    if args.mode.lower() != AUTO:
        get_mode(args.mode)
    output = check_output_path(args.output)
    if args.save_voice is not None:
        check_writable(Path(args.save_voice))
    for flag, path in (("--ref-audio", args.ref_audio), ("--voice", args.voice), ("--file", args.file)):
        if path is None:
            continue
        if not Path(path).is_file():
            problem = "is a directory" if Path(path).is_dir() else "does not exist"
            raise InputError(f"{flag} {path!r} {problem}: name a file")
        for written in (args.output, args.save_voice):
            if written is not None and Path(written).exists() and Path(written).samefile(path):
                raise InputError(f"{written!r} would overwrite {flag}: name another file")
    # Last, because it may wait for somebody who types.
    return Job(read_text(args), output, options)


def check_voice_flags(args: argparse.Namespace) -> None:
    """Raise InputError for voice flags that exclude or lack each other."""
    sources = [
        f"--{name.replace('_', '-')}" for name in ("ref_audio", "voice", "instruct") if getattr(args, name) is not None
    ]
    if len(sources) > 1:
        raise InputError(f"{' and '.join(sources)} were both given: clone a voice, take a saved one, or design one")
    for flag, value in (("--ref-text", args.ref_text), ("--save-voice", args.save_voice)):
        if value is not None and args.ref_audio is None:
            raise InputError(f"{flag} was given without --ref-audio, the recording that it belongs to")
    if args.save_voice is not None and os.path.realpath(args.save_voice) == os.path.realpath(args.output):
        raise InputError(f"--save-voice and --output both name {args.output!r}: give each its own file")


def say(args: argparse.Namespace, job: Job, console: Console) -> dict[str, Any]:
    """Load the model, speak, write; the record of what was done."""
    with quick_imports():
        from omnivoice_triton.audio_files import read_reference
        from omnivoice_triton.checkpoint import checkpoint_kind, is_demo, is_random, resolve_model
        from omnivoice_triton.checkpoint.demo import DEMO
        from omnivoice_triton.checkpoint.resolve import MODEL_VARIABLE
        from omnivoice_triton.models.registry import create_runner
        from omnivoice_triton.models.request import check_instruct, load_voice
        from omnivoice_triton.models.seeding import resolve_seed

    seed = resolve_seed(args.seed)
    check_instruct(args.instruct, job.text)
    voice = load_voice(args.voice) if args.voice is not None else None
    reference = None
    if args.ref_audio is not None:
        with console.mute_native():
            reference = read_reference(args.ref_audio)
    # The model comes last: it may have to be downloaded.
    runner = create_runner(args.mode, device=args.device, dtype=args.dtype, graph_budget_mb=args.graph_budget_mb)
    if args.mode.lower() == AUTO:
        console.note(f"mode {runner.mode.name}: {runner.reason}")
    model = resolve_model(args.model)
    runner.model_id = model
    if is_random(model):
        console.note(
            "this model has random weights: you will hear noise, not speech; "
            f"for a real voice add --model {HUB_MODEL_ID}"
        )
    elif args.model is None and not os.environ.get(MODEL_VARIABLE) and is_demo(model):
        console.note(
            "this is the small, robotic demo voice, which knows some hundred words of English, Korean and Chinese; "
            f"for the real one add --model {HUB_MODEL_ID}"
        )
    start = time.perf_counter()
    with runner, console.progress("step") as report:
        loaded = time.perf_counter()
        if reference is not None:
            voice = runner.create_voice(reference, args.ref_text, preprocess_prompt=job.options.preprocess_prompt)
        encoded = time.perf_counter()
        speech: Speech = runner.generate(
            job.text,
            args.language,
            instruct=args.instruct,
            voice=voice,
            seed=seed,
            duration=args.duration,
            speed=args.speed,
            normalize_text=args.normalize_text,
            progress=report,
            **vars(job.options),
        )
        speech.save(job.output)
        if args.save_voice is not None:
            save_voice(voice, Path(args.save_voice))
        return {
            "output": str(job.output),
            **figures(speech, runner),
            "model": args.model or os.environ.get(MODEL_VARIABLE) or DEMO,
            "weights": checkpoint_kind(model),
            "load_s": loaded - start,
            "voice_s": encoded - loaded,
        }


def figures(speech: Speech, runner: BaseRunner) -> dict[str, Any]:
    """Every figure of a result but the samples, and what it ran on."""
    return {
        "mode": speech.mode,
        "device": runner.device,
        "dtype": str(runner.dtype).removeprefix("torch."),
        "seed": speech.seed,
        "sample_rate": speech.sample_rate,
        "samples": len(speech.audio),
        "audio_s": speech.audio_s,
        "time_ms": speech.time_ms,
        "time_s": speech.time_s,
        "speed_x": speech.speed_x,
        "peak_vram_gb": speech.peak_vram_gb,
    }


def summary(record: dict[str, Any]) -> str:
    """The record in one line for people."""
    return (
        "{mode} on {device}: {audio_s:.2f} s of audio in {time_ms:.0f} ms, "
        "{speed_x:.2f}x real time, seed {seed}: {output}"
    ).format(**record)


def save_voice(voice: Any, path: Path) -> None:
    """Write a voice prompt; the file appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        voice.save(str(partial))
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        raise InputError(f"can't write {str(path)!r}: {' '.join(str(error).split())}") from error
    finally:
        partial.unlink(missing_ok=True)
