"""The demo voice's tokenizer: one token a Hangul syllable or Han character of the vocabulary, one a byte otherwise.

Same class, rules and special tokens as OmniVoice's: a byte-level BPE. Its merges only join the three bytes of a known
character, so that a text's tokens are the tokens of its parts, and one that was never trained falls back to bytes.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from tools.demo_voice.text import chinese, english, korean

_EXTRA = "，。？！、：；“”"


def alphabet() -> list[str]:
    """Every character beyond ASCII that the sentences can hold, sorted."""
    found: set[str] = set(_EXTRA)
    for module in (english, korean, chinese):
        for value in vars(module).values():
            _collect(value, found)
    # Characters in templates and spelled-out numbers: whatever the source says.
    for module in (korean, chinese):
        found |= set(Path(module.__file__).read_text(encoding="utf-8"))
    found |= set("男女儿童少年青年中老极低音调高耳语")  # Voice design in Chinese
    return sorted(character for character in found if ord(character) > 0x7FF)


def _collect(value: object, found: set[str]) -> None:
    if isinstance(value, str):
        found |= set(value)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, found)


def tokenizer_files() -> dict[str, dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json; ids are bytes, then merged characters, then special tokens."""
    data = resources.files("omnivoice_triton") / "data" / "tiny"
    tokenizer = json.loads((data / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((data / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    if len(vocabulary) != 256:
        raise ValueError(f"the template has {len(vocabulary)} tokens: wanted the 256 bytes")
    letters = _byte_letters()
    merges: list[list[str]] = []
    joined: list[tuple[str, str]] = []
    for character in alphabet():
        units = [letters[byte] for byte in character.encode()]
        for end in range(2, len(units) + 1):
            joined.append(("".join(units[: end - 1]), units[end - 1]))
    # First bytes one and two of all, then the third: order says nothing, as no merge competes with another.
    for left, right in sorted(dict.fromkeys(joined), key=lambda pair: (len(pair[0]), pair)):
        vocabulary.setdefault(left + right, len(vocabulary))
        merges.append([left, right])
    tokenizer["model"]["merges"] = merges
    for index, token in enumerate(tokenizer["added_tokens"]):
        token["id"] = len(vocabulary) + index
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}


def write_tokenizer(directory: Path) -> None:
    """Write the tokenizer's files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in tokenizer_files().items():
        (directory / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer as upstream loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def _byte_letters() -> dict[int, str]:
    """Byte-level BPE's printable letter of each byte: itself where it is printable, else one from 256 up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(printable)))
    return letters
