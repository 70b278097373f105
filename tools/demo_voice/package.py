"""Put a finished demo voice into the package: `python -m tools.demo_voice.package RUN [--figures EVALUATION.json ...]`.

RUN is a training directory with checkpoint/ and judge/. Both are checked, their sizes too, and replace what
src/omnivoice_triton/data holds of them. With --figures the model card is written anew (see `figures`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

from tools.demo_voice import figures

from omnivoice_triton.checkpoint import LAYOUT, is_demo, validate_checkpoint
from omnivoice_triton.checkpoint.demo import DATA, DEMO, JUDGE_FILES, SENTENCES
from omnivoice_triton.speech import InputError, OmniVoiceTritonError
from omnivoice_triton.verify.judge import load_judge
from omnivoice_triton.verify.sentences import held_out

MODEL_BYTES, CODEC_BYTES, JUDGE_BYTES = 20_000_000, 6_000_000, 6_000_000
"""The most that each may take."""
HELD_OUT = 100
"""Sentences a language that have to be there."""


def check(checkpoint: Path, judge: Path) -> dict[str, int]:
    """Bytes of model, codec and judge.

    Raises:
        CheckpointError, InputError: something is missing, too large or no demo voice.
    """
    validate_checkpoint(checkpoint)
    if not is_demo(checkpoint):
        raise InputError(f"{checkpoint} is no demo voice: its config.json doesn't say so")
    counts = Counter(sentence.code for sentence in held_out(checkpoint))
    if sorted(counts) != ["en", "ko", "zh"] or min(counts.values()) < HELD_OUT:
        raise InputError(f"{checkpoint / SENTENCES} holds {dict(counts)}: at least {HELD_OUT} a language are wanted")
    load_judge(judge)
    in_codec = [name for name in LAYOUT if "/" in name]
    sizes = {
        "model": _size(checkpoint, [name for name in LAYOUT if "/" not in name] + [SENTENCES]),
        "codec": _size(checkpoint, in_codec),
        "judge": _size(judge, JUDGE_FILES),
    }
    for (name, size), most in zip(sizes.items(), (MODEL_BYTES, CODEC_BYTES, JUDGE_BYTES), strict=True):
        if size > most:
            raise InputError(f"the {name} takes {size / 1e6:.2f} MB: {most / 1e6:.0f} MB are the most")
    return sizes


def install(checkpoint: Path, judge: Path, data: Path) -> None:
    """Copy the files that are used, and those alone, into data/demo and data/judge."""
    for source, name, files in ((checkpoint, DEMO, (*LAYOUT, SENTENCES)), (judge, "judge", JUDGE_FILES)):
        target, partial = data / name, data / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for file in files:
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, partial / file)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)


def _size(directory: Path, files: list[str] | tuple[str, ...]) -> int:
    return sum((directory / file).stat().st_size for file in files)


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_voice.package", description=__doc__)
    parser.add_argument("run", type=Path, help="training directory, with checkpoint/ and judge/")
    parser.add_argument("--figures", type=Path, nargs="+", default=[], metavar="JSON", help="what evaluate wrote")
    parser.add_argument("--verify", type=Path, metavar="JSON", help="what `verify --tier 3 --json` wrote of its modes")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="the spectrograms that evaluate drew")
    parser.add_argument("--curves", type=Path, metavar="PNG", help="the curves that train drew")
    options = parser.parse_args(arguments)
    try:
        sizes = check(options.run / "checkpoint", options.run / "judge")
        install(options.run / "checkpoint", options.run / "judge", DATA)
        print(", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items()) + f": {DATA}")
        if options.figures or options.verify or options.picture or options.curves:
            figures.collect(options.figures, options.verify, options.picture, options.curves)
            print(f"{figures.PAGE} and what it is made of")
    except OmniVoiceTritonError as error:
        print(f"package: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
