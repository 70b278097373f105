"""Flags: kebab-case, with upstream's snake_case taken too, and one for each generation option."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from omnivoice_triton.config import GenerationOptions

_OPTION_HELP = {
    "num_step": "decoding steps: fewer are faster and rougher",
    "guidance_scale": "how closely to follow the text and the voice",
    "t_shift": "below 1, more of the steps go to the first, hardest tokens",
    "layer_penalty_factor": "how much earlier the coarse codebooks are filled in",
    "position_temperature": "randomness of which positions are filled in first",
    "class_temperature": "randomness of the tokens themselves; 0 takes the likeliest",
    "denoise": "ask for clean speech when cloning",
    "preprocess_prompt": "cut silences out of the reference and end its transcript with punctuation",
    "postprocess_output": "cut long silences out of the result",
    "audio_chunk_duration": "seconds of speech in a piece, when a long text is split",
    "audio_chunk_threshold": "split texts that are estimated to last longer than this many seconds",
    "pad_duration": "seconds of silence before and after",
    "fade_duration": "seconds to fade in and out",
}
_TYPES = {"int": int, "float": float}
_UPSTREAM_BOOLEANS = {"true": True, "false": False}


class Switch(argparse.Action):
    """`--x` and `--no-x`, as argparse.BooleanOptionalAction, whose help text differs between Python versions."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        spellings = [f"--{no}{name.removeprefix('--')}" for no in ("", "no-") for name in option_strings]
        super().__init__(spellings, dest, nargs=0, **kwargs)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store which of the two was given."""
        setattr(namespace, self.dest, not str(option).startswith("--no-"))


def add_flag(group: argparse._ActionsContainer, *names: str, **settings: Any) -> None:
    """Add a flag, and its snake_case spelling, which does not show in the help.

    Args:
        group: parser or argument group.
        *names: kebab-case names, such as `-o`, `--output`.
        **settings: as for `add_argument`.
    """
    action = group.add_argument(*names, **settings)
    snakes = [f"--{name[2:].replace('-', '_')}" for name in names if name.startswith("--") and "-" in name[2:]]
    if snakes:
        group.add_argument(*snakes, **{**settings, "dest": action.dest, "help": argparse.SUPPRESS})


def add_generation_options(group: argparse._ActionsContainer) -> None:
    """One flag for each field of `GenerationOptions`, with its type and default."""
    for field in fields(GenerationOptions):
        name = f"--{field.name.replace('_', '-')}"
        text = _OPTION_HELP[field.name]
        if field.type == "bool":
            add_flag(group, name, action=Switch, default=field.default, help=f"{text} (default: {_on(field.default)})")
        else:
            kind = _TYPES[str(field.type)]
            metavar = "N" if kind is int else "X"
            add_flag(
                group, name, type=kind, default=field.default, metavar=metavar, help=f"{text} (default: %(default)s)"
            )


def generation_options(args: argparse.Namespace) -> GenerationOptions:
    """The options from parsed flags.

    Raises:
        InputError: a value is out of range.
    """
    return GenerationOptions(**{field.name: getattr(args, field.name) for field in fields(GenerationOptions)})


def fold_booleans(argv: Sequence[str]) -> list[str]:
    """Turn upstream's `--denoise False` and `--denoise=False` into `--no-denoise`; the rest stays as it is."""
    switches = {
        f"--{name}"
        for f in fields(GenerationOptions)
        if f.type == "bool"
        for name in (f.name, f.name.replace("_", "-"))
    }
    folded: list[str] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if token == "--":
            return [*folded, token, *rest]
        name, equals, value = token.partition("=")
        if name in switches:
            value = value if equals else (rest[0] if rest else "")
            said = _UPSTREAM_BOOLEANS.get(value.lower())
            if said is not None:
                if not equals:
                    rest.pop(0)
                token = name if said else f"--no-{name[2:]}"
        folded.append(token)
    return folded


def _on(value: Any) -> str:
    return "on" if value else "off"
