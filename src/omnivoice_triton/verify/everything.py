"""All tiers, one report: what `omnivoice-triton verify` runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omnivoice_triton.commands import MODEL_HELP, Parser, command
from omnivoice_triton.config import MODES
from omnivoice_triton.speech import InputError
from omnivoice_triton.verify.outcome import Progress, Tier, raised

NAMES = {1: "kernels", 2: "model", 3: "speech"}
TIERS = tuple(NAMES)
PASSED, FAILED = 0, 1
STDOUT = "-"
PROGRESS_MARK = "progress "
"""Before each line of JSON on standard error under `--progress json`."""


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Flags of the three tiers; nothing heavy is imported for them."""
    parser.add_argument("--tier", default="1,2,3", metavar="1,2,3", help="which tiers (default: %(default)s)")
    parser.add_argument("--model", help=MODEL_HELP)
    parser.add_argument("--modes", metavar="MODE,…", help=f"of {', '.join(MODES)}; default: all that can run here")
    parser.add_argument("--dtypes", metavar="DTYPE,…", help="of tier 2; default: fp16,bf16 on a GPU, fp32 on a CPU")
    parser.add_argument(
        "--dtype", default="auto", metavar="DTYPE,…", help="of tier 3 (default: fp16 on a GPU, fp32 on a CPU)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    parser.add_argument("--all-layers", action="store_true", help="tier 2: hidden states of every layer, not of five")
    parser.add_argument("--steps", type=int, help="decoding steps of tiers 2 and 3 (default: 32 on a GPU, 8 on a CPU)")
    parser.add_argument("--seconds", type=float, help="tier 2: of speech (default: 5 on a GPU, 1 on a CPU)")
    parser.add_argument(
        "--sentences",
        type=int,
        help="tier 3: of the fixed set (default: all 16 on a GPU, 4 on a CPU); "
        "of the demo voice's own 360 (default: 24 on a GPU, 6 on a CPU)",
    )
    parser.add_argument(
        "--recogniser",
        default="auto",
        metavar="NAME",
        help="tier 3: none, auto, judge[:DIR], whisper[:MODEL] or module:function, for the character error rate "
        "(default: auto: the packaged judge for the demo voice; for real weights an installed one, else Whisper)",
    )
    parser.add_argument(
        "--scorer",
        default="auto",
        metavar="NAME",
        help="tier 3: none, auto, utmos or module:function, for naturalness (default: auto: UTMOS if installed)",
    )
    parser.add_argument("--ref-audio", type=Path, help="tier 3: the voice to clone (default: base makes one up)")
    parser.add_argument("--ref-text", help="tier 3: what is said in it")
    parser.add_argument("--samples", type=Path, metavar="DIR", help="tier 3: keep the recordings there, as FLAC")
    parser.add_argument(
        "--json",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="write the report as JSON; without FILE, print it instead",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page")
    parser.add_argument("--progress", choices=("bar", "json", "none"), default="bar", help=argparse.SUPPRESS)


def chosen_tiers(text: str) -> list[int]:
    """`1,3` as numbers.

    Raises:
        InputError: none, or one that there isn't.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or any(part not in map(str, TIERS) for part in parts):
        raise InputError(f"--tier {text!r}: give 1, 2 or 3, or several such as 1,2")
    return sorted({int(part) for part in parts})


def named(text: str | None) -> list[str] | None:
    """A comma-separated list, or None for the default.

    Raises:
        InputError: it is empty.
    """
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError("an empty list was given: name something, or leave the flag out")
    return names


def run(options: argparse.Namespace) -> int:
    """Run the tiers and report; the exit code is the verdict.

    Raises:
        InputError: a flag that can't be followed; nothing has run then.
    """
    tiers = chosen_tiers(options.tier)
    modes, dtypes = named(options.modes), named(options.dtypes)
    spoken = named(options.dtype) or []
    _check_numbers(options)
    if (options.ref_audio is None) != (options.ref_text is None):
        raise InputError("--ref-audio and --ref-text belong together: give both, or neither")
    if options.ref_audio is not None and not options.ref_audio.is_file():
        raise InputError(f"--ref-audio {options.ref_audio}: no such file")
    from omnivoice_triton.evidence import check_outputs
    from omnivoice_triton.verify import kernel_tier, page, terminal
    from omnivoice_triton.verify.report import make_report

    to_stdout = options.json == STDOUT
    as_json = None if to_stdout or options.json is None else Path(options.json)
    check_outputs(as_json, options.html, *([] if options.samples is None else [options.samples / "metadata.json"]))
    if 1 in tiers and not _means_gpu(options.device):
        with suppress(InputError):  # tier 1 says so itself, and fails
            kernel_tier.interpret_on_cpu("cpu")  # before anything imports triton, and our models do
    from transformers.utils import logging as transformers_logging

    from omnivoice_triton.evidence import default_model
    from omnivoice_triton.models.availability import check_device, resolve_dtype
    from omnivoice_triton.verify import parity

    transformers_logging.disable_progress_bar()  # of loading weights, a dozen times over
    device = check_device(options.device)
    on_cpu = device == "cpu"
    for dtype in [*(dtypes or []), *spoken]:
        resolve_dtype(dtype, device)
    usable = parity.usable_modes(modes, device)
    if modes is None and on_cpu:
        # Triton's interpreter takes minutes for a sentence: on a CPU the kernels have tier 1.
        usable = [mode for mode in usable if not MODES[mode].triton]
    model = default_model(options.model, device) if set(tiers) - {1} else None
    recogniser = scorer = None
    sentences = 0
    if 3 in tiers:
        from omnivoice_triton.checkpoint import checkpoint_kind
        from omnivoice_triton.verify.recognise import recogniser_for
        from omnivoice_triton.verify.scorer import load_scorer

        assert model is not None
        sentences = _sentences(options.sentences, model, on_cpu)
        recogniser = recogniser_for(options.recogniser, device, checkpoint_kind(model))
        scorer = load_scorer(options.scorer, device)
    steps = options.steps or (8 if on_cpu else 32)

    def work(tier: int, progress: Progress) -> Tier:
        if tier == 1:
            return kernel_tier.run(device, progress=progress)
        assert model is not None
        if tier == 2:
            return parity.run(
                model,
                usable,
                device=device,
                dtypes=dtypes or parity.default_dtypes(device),
                seconds=options.seconds or (1.0 if on_cpu else 5.0),
                steps=steps,
                keep=8,
                layers=None if options.all_layers else parity.LAYERS,
                progress=progress,
            )
        from omnivoice_triton.verify import speech_tier

        return speech_tier.run_dtypes(
            model,
            usable,
            device=device,
            dtypes=spoken,
            sentences=sentences,
            steps=steps,
            recogniser=recogniser,
            scorer=scorer,
            reference=None if options.ref_audio is None else (str(options.ref_audio), options.ref_text),
            samples=options.samples,
            progress=progress,
        )

    def keep(so_far: list[Tier]) -> None:
        if as_json is not None:
            make_report(so_far, model, device, as_json)

    with _progress(options.progress) as progress:
        done, interrupted = run_each(tiers, lambda tier: work(tier, progress), keep)
    document = make_report(done, model, device, as_json)
    if options.html is not None:
        page.write(document, options.html)
    if to_stdout:
        print(json.dumps(document, ensure_ascii=False))
    else:
        terminal.show(document)
    if interrupted:
        raise KeyboardInterrupt
    return PASSED if document["passed"] else FAILED


def run_each(
    tiers: Sequence[int], work: Callable[[int], Tier], keep: Callable[[list[Tier]], None] = lambda so_far: None
) -> tuple[list[Tier], bool]:
    """Run tier after tier; one that raises is reported as failed, and so are those that Ctrl-C cut off.

    Args:
        tiers: their numbers.
        work: runs one.
        keep: gets all tiers whenever one is done and others are not, those as failed: what a run that is killed leaves.

    Returns:
        The tiers, and whether Ctrl-C ended them: what was finished by then is worth a report.

    Raises:
        InputError: the first tier can't follow what was asked for.
        KeyboardInterrupt: Ctrl-C before a tier was finished.
    """
    done: list[Tier] = []
    for tier in tiers:
        try:
            done.append(work(tier))
        except KeyboardInterrupt:
            if not done:
                raise
            cut = [number for number in tiers if number >= tier]
            return done + [_unfinished(number, "interrupted before it was done") for number in cut], True
        except Exception as error:
            if not done and isinstance(error, InputError):
                raise
            done.append(_unfinished(tier, raised(error)))
        waiting = [_unfinished(number, "the run ended before it was done") for number in tiers if number > tier]
        if waiting:
            keep([*done, *waiting])
    return done, False


def _unfinished(tier: int, problem: str) -> Tier:
    return Tier(tier, NAMES[tier], "not finished", {}, problems=[problem])


def _means_gpu(device: str) -> bool:
    import torch

    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def _check_numbers(options: argparse.Namespace) -> None:
    if options.steps is not None and options.steps < 1:
        raise InputError(f"--steps must be at least 1, not {options.steps}")
    if options.seconds is not None and not 0.5 <= options.seconds <= 60:
        raise InputError(f"--seconds must be 0.5 to 60, not {options.seconds}")
    if options.sentences is not None and options.sentences < 1:
        raise InputError(f"--sentences must be at least 1, not {options.sentences}")


def _sentences(wanted: int | None, model: Path, on_cpu: bool) -> int:
    from omnivoice_triton.checkpoint import is_demo
    from omnivoice_triton.verify.sentences import material

    available = len(material(model).sentences)
    if wanted is not None and wanted > available:
        raise InputError(f"--sentences must be 1 to {available}, not {wanted}")
    few, many = (6, 24) if is_demo(model) else (4, available)
    return wanted or min(few if on_cpu else many, available)


@contextmanager
def _progress(kind: str) -> Any:
    from omnivoice_triton.verify.terminal import progress_bar

    if kind != "json":
        with progress_bar(kind == "bar") as bar:
            yield bar
        return

    def tell(tier: int, what: str, done: int, total: int) -> None:
        line = json.dumps({"tier": tier, "what": what, "done": done, "total": total}, ensure_ascii=False)
        print(f"{PROGRESS_MARK}{line}", file=sys.stderr, flush=True)

    yield tell


@command("verify")
def main(argv: Sequence[str] | None = None) -> int:
    """The same as a module of its own: `python -m omnivoice_triton.verify.everything`."""
    parser = Parser(
        prog="omnivoice-triton verify", description="Check that every mode computes and says what base does."
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
