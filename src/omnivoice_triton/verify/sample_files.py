"""A folder of samples: recordings, and a `metadata.json` that says what each is and how it was made.

A run writes beside the folder and takes its place at the end, so that a former run's samples stay until the new ones
are whole; and nothing is removed that a former run did not write.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnivoice_triton.evidence import read_json
from omnivoice_triton.speech import InputError, Speech

METADATA = "metadata.json"
KIND = "samples"
MAX_BYTES = 15_000_000
"""All files of a folder together: they are committed to a repository."""
_FILES_OF = ("samples", "references")


def keep(folder: Path, file: str, speech: Speech, **about: Any) -> dict[str, Any]:
    """Write one recording as `folder`/`file`, whose extension chooses the format.

    Returns:
        Its entry: `file`, what `about` says, `seed`, `audio_s` (seconds of audio), `time_ms` (of the call that made
        it), `bytes` and `sha256` of the file.
    """
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    speech.save(path)
    return {
        "file": file,
        **about,
        "seed": speech.seed,
        "audio_s": round(speech.audio_s, 4),
        "time_ms": round(speech.time_ms, 3),
        "bytes": path.stat().st_size,
        "sha256": digest(path),
    }


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_metadata(folder: Path, document: Mapping[str, Any]) -> None:
    """Write what is known of the samples in `folder`."""
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (folder / METADATA).write_text(text, encoding="utf-8")


def read_metadata(folder: Path) -> dict[str, Any]:
    """The document that describes the folder.

    Raises:
        InputError: there is none, or it can't be one of ours.
    """
    path = folder / METADATA
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("samples"), list):
        raise InputError(f"{path} lists no samples")
    entries = [entry for name in _FILES_OF for entry in document.get(name, [])]
    if not all(isinstance(entry, dict) and isinstance(entry.get("file"), str) for entry in entries):
        raise InputError(f"{path}: an entry names no file")
    return document


def faults(folder: Path) -> list[str]:
    """What is wrong with a folder, in words: files that lack, differ or are too many, modes that say unequal things.

    Raises:
        InputError: its metadata can't be read.
    """
    document = read_metadata(folder)
    wrong = [] if document["samples"] else ["no samples"]
    present = _files(folder)
    listed = {METADATA}
    for entry in (entry for name in _FILES_OF for entry in document.get(name, [])):
        name = entry["file"]
        if name in listed:
            wrong.append(f"{name}: listed twice")
        elif name not in present:
            wrong.append(f"{name}: not there")
        elif digest(folder / name) != entry.get("sha256"):
            wrong.append(f"{name}: other content than when it was made")
        listed.add(name)
    wrong += [f"{name}: not in {METADATA}" for name in sorted(present - listed)]
    wrong += _unequal(document["samples"])
    size = sum((folder / name).stat().st_size for name in present)
    if size >= MAX_BYTES:
        wrong.append(f"{size / 1e6:.1f} MB, must stay under {MAX_BYTES / 1e6:g}")
    return wrong


def check_target(out: Path) -> None:
    """Raise InputError if `out` is no place for samples, or holds anything that no former run wrote."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file: name a folder for the samples")
    present = _files(out)
    if not present:
        return
    known = {METADATA}
    if METADATA in present:
        document = read_metadata(out)
        known |= {entry["file"] for name in _FILES_OF for entry in document.get(name, [])}
    strangers = sorted(present - known)
    if strangers:
        raise InputError(f"{out} holds {strangers[0]}, which is no sample of a former run: name another folder")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `out` if the block ends well, and is removed if it doesn't.

    Raises:
        InputError: `out` can't be replaced.
    """
    out = out.resolve()  # of a link the folder that it means is replaced
    check_target(out)
    scratch, old = (out.with_name(f".{out.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"can't write beside {out}: {error.strerror or error}") from error
    try:
        yield scratch
        check_target(out)  # again: minutes have passed
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(scratch, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _files(folder: Path) -> set[str]:
    """Everything below that is no folder, links included, by path with `/`."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _unequal(samples: list[dict[str, Any]]) -> list[str]:
    """Modes that don't say what the first one says, with the same seed."""
    said: dict[str, set[tuple[Any, ...]]] = {}
    for entry in samples:
        said.setdefault(str(entry.get("mode")), set()).add(
            tuple(entry.get(key) for key in ("language", "voice", "text", "seed"))
        )
    first = next(iter(said), "")
    return [f"{mode} says other things than {first}" for mode, things in said.items() if things != said[first]]
