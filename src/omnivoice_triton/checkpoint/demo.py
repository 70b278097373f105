"""The demo voice that comes with the package, and the judge that reads it: where their files are.

How they are made: `tools/demo_voice` in the repository.
"""

from __future__ import annotations

from pathlib import Path

DEMO = "demo"
"""The demo voice's name, wherever a model is named."""
SENTENCES = "sentences.json"
"""In a demo checkpoint: the sentences of its languages that nothing was trained on, as {"language", "text"}."""
JUDGE_FILES = ("judge.json", "judge.safetensors")

DATA = Path(__file__).resolve().parents[1] / "data"


def packaged_demo() -> Path | None:
    """The packaged demo voice, if this installation has it."""
    return _with(DATA / "demo", "config.json")


def packaged_judge() -> Path | None:
    """The packaged judge, if this installation has it."""
    return _with(DATA / "judge", *JUDGE_FILES)


def _with(directory: Path, *names: str) -> Path | None:
    return directory if all((directory / name).is_file() for name in names) else None
