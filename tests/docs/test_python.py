"""Python in the READMEs and docs compiles, its names import, and what needs no GPU runs."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from omnivoice_triton import checkpoint
from tests.docs.pages import PAGES, READMES, ROOT, blocks, languages

ALL = [(page, number, code) for page in PAGES for number, code in enumerate(blocks(page, "python"))]


def test_fences_say_what_they_hold() -> None:
    """A command under another name, or none, would be run by no test."""
    assert {name for page in PAGES for name in languages(page)} == {"bash", "python", "text"}
    for page in PAGES:
        for body in blocks(page, "text"):
            assert not re.search(r"^\s*(\$|make |pip |python |git |(\.venv/bin/)?omnivoice-triton )", body, re.M)
    assert all(len(blocks(page, "python")) == 2 for page in READMES)


@pytest.mark.parametrize(("page", "number", "code"), ALL, ids=[f"{page.stem}-{number}" for page, number, _ in ALL])
def test_it_compiles_and_its_names_import(page: Path, number: int, code: str) -> None:
    tree = ast.parse(code)
    compile(tree, f"{page.name} block {number}", "exec")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports, "a block that imports nothing can't be run as it stands"
    for node in imports:
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
            continue
        module = importlib.import_module(str(node.module))
        for name in node.names:
            if not hasattr(module, name.name):
                importlib.import_module(f"{node.module}.{name.name}")


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.stem)
def test_the_first_block_speaks(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a tiny model that lies where the real one is looked for."""
    checkpoint.make_checkpoint(tmp_path / "k2-fsa" / "OmniVoice", "tiny")
    time = np.arange(2 * 24_000) / 24_000
    soundfile.write(tmp_path / "reference.wav", 0.3 * np.sin(2 * np.pi * (180 + 40 * time) * time), 24_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        exec(blocks(page, "python")[0], {})
    finally:
        torch.set_num_threads(threads)
    assert "times real time, seed 7" in capsys.readouterr().out
    for name in ("hello.wav", "designed.wav"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.skipif(torch.cuda.is_available(), reason="the example is for Triton's interpreter")
def test_the_fault_of_the_contributing_page_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks(ROOT / "docs" / "contributing.md", "python")
    names: dict[str, Any] = {}
    exec(code, names)
    names["test_a_shifted_column_is_seen"](monkeypatch)
    monkeypatch.undo()
    names["off_by_one_column"] = lambda real: real
    with pytest.raises(AssertionError):  # without the fault the tier passes
        names["test_a_shifted_column_is_seen"](monkeypatch)
