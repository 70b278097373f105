"""`omnivoice-triton samples`: the same sentences in every mode, in a folder for the dashboard."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from omnivoice_triton.cli.console import Console
from omnivoice_triton.cli.flags import add_flag
from omnivoice_triton.config import AUTO, MODES, GenerationOptions
from omnivoice_triton.speech import InputError

DEFAULT_OUT = "assets/audio_samples"
DEFAULT_SEED = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `samples`."""
    add_flag(
        parser, "-o", "--out", type=Path, default=Path(DEFAULT_OUT), metavar="DIR", help="folder (default: %(default)s)"
    )
    add_flag(
        parser,
        "--model",
        metavar="ID|DIR",
        help="hub id or directory (default: $OMNIVOICE_TRITON_MODEL or the demo voice)",
    )
    add_flag(parser, "--modes", metavar="MODE,…", help=f"of {', '.join(MODES)}; default: all that can run here")
    add_flag(
        parser,
        "--steps",
        type=int,
        default=GenerationOptions().num_step,
        metavar="N",
        help="decoding steps (default: %(default)s)",
    )
    add_flag(
        parser, "--seed", type=int, default=DEFAULT_SEED, metavar="N", help="of every sentence (default: %(default)s)"
    )
    add_flag(parser, "--device", default=AUTO, help="auto, cpu, cuda, cuda:1, … (default: %(default)s)")
    add_flag(parser, "--dtype", default=AUTO, help="fp16, bf16 or fp32 (default: fp16 on a GPU, fp32 on a CPU)")
    add_flag(
        parser, "--format", default="flac", choices=("flac", "opus"), help="opus is smaller (default: %(default)s)"
    )
    add_flag(
        parser,
        "--ref-audio",
        metavar="FILE",
        help="the voice to clone (default: one that base makes up for each language); a copy is kept",
    )
    add_flag(parser, "--ref-text", metavar="TEXT", help="what is said in it")
    add_flag(parser, "--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Make the folder, tell what is in it.

    Raises:
        InputError: a flag that can't be followed; nothing has run then.
    """
    GenerationOptions(num_step=args.steps)
    if (args.ref_audio is None) != (args.ref_text is None):
        raise InputError("--ref-audio and --ref-text belong together: give both, or neither")
    console = Console(quiet=args.quiet)
    with console.calm():
        document = make(args, console)
    if not args.quiet:
        print(summary(document, args.out))
    return 0


def make(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check, speak, write; what metadata.json says."""
    from omnivoice_triton.audio_files import read_reference
    from omnivoice_triton.checkpoint import is_random, resolve_model
    from omnivoice_triton.models.availability import check_device, resolve_dtype
    from omnivoice_triton.models.seeding import resolve_seed
    from omnivoice_triton.verify import parity, sample_files, samples
    from omnivoice_triton.verify.everything import named

    seed = resolve_seed(args.seed)
    device = check_device(args.device)
    resolve_dtype(args.dtype, device)
    given = named(args.modes)
    usable, left_out = samples.usable_modes(device)
    modes = usable if given is None else parity.usable_modes(given, device)
    if given is not None:
        left_out = {mode: left_out.get(mode, "not asked for") for mode in MODES if mode not in {"base", *modes}}
    else:
        for mode, reason in left_out.items():
            console.note(f"mode {mode} is left out: {reason}")
    sample_files.check_target(args.out)
    reference = None
    if args.ref_audio is not None:
        with console.mute_native():
            recording, rate = read_reference(args.ref_audio)
        reference = samples.Reference(Path(args.ref_audio).name, recording, rate, args.ref_text)
    model = resolve_model(args.model)
    if is_random(model):
        console.note("this model has random weights: you will hear noise, not speech")
    with console.progress("sample") as report:
        return samples.run(
            args.out,
            model,
            modes,
            device=device,
            dtype=args.dtype,
            steps=args.steps,
            seed=seed,
            audio_format=args.format,
            reference=reference,
            name=samples.model_name(args.model),
            left_out=left_out,
            progress=report,
        )


def summary(document: dict[str, Any], out: Path) -> str:
    """A line a mode, and one for the folder."""
    lines = []
    for mode in document["modes"]:
        made = [entry for entry in document["samples"] if entry["mode"] == mode]
        audio = sum(entry["audio_s"] for entry in made)
        equal = sum(entry["tokens_equal_to_base"] for entry in made) / len(made)
        lines.append(f"{mode:12} {len(made)} samples, {audio:.1f} s, {equal:.1%} of tokens equal to base's")
    size = sum(entry["bytes"] for entry in [*document["samples"], *document["references"]])
    return "\n".join([*lines, f"{size / 1e6:.1f} MB, {document['device']} {document['dtype']}: {out}"])
