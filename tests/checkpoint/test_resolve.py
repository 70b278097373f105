"""Where a model is looked for: built in, named directory, hub."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from omnivoice_triton import checkpoint
from omnivoice_triton.checkpoint import demo, resolve
from omnivoice_triton.speech import CheckpointError, InputError
from tests.checkpoint.helpers import (
    LM,
)


def test_the_built_in_model_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.resolve_model("tiny")
    assert path == cache / "tiny-r1"
    assert checkpoint.checkpoint_kind(path) == "random-tiny"
    monkeypatch.setattr(resolve, "make_checkpoint", lambda *args, **kwargs: pytest.fail("made again"))
    assert checkpoint.resolve_model("tiny") == checkpoint.cached_checkpoint() == path


def test_the_built_in_model_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from omnivoice_triton import checkpoint; path = checkpoint.resolve_model('tiny'); "
        "heavy = [m for m in ('torch', 'transformers', 'omnivoice', 'huggingface_hub') if m in sys.modules]; "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMNIVOICE_TRITON_CACHE": str(tmp_path)})


def test_the_cached_full_model(cache: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model stands in for the 3.3 GB."""
    monkeypatch.setattr(resolve, "make_checkpoint", lambda path, size, seed: shutil.copytree(tiny, path))
    assert checkpoint.cached_checkpoint("full") == cache / "full-r1"
    with pytest.raises(InputError, match="'huge'"):
        checkpoint.cached_checkpoint("huge")


def test_a_broken_built_in_model_is_made_anew(cache: Path) -> None:
    path = checkpoint.resolve_model("tiny")
    (path / LM).write_bytes(b"cut short")
    leftover = cache / ".tiny-r1.0123456789ab.partial"
    leftover.mkdir()
    assert checkpoint.resolve_model("tiny") == path
    checkpoint.validate_checkpoint(path)
    assert not leftover.exists()


def test_processes_that_race_for_the_built_in_model(cache: Path) -> None:
    """All see an empty cache, then start at once; each must end with a whole model, and one of them made it."""
    code = (
        "import sys, time\n"
        "from omnivoice_triton import checkpoint\n"
        "from omnivoice_triton.checkpoint import resolve\n"
        "original = resolve.make_checkpoint\n"
        "def slow(path, *args, **kwargs):\n"
        "    print('made', flush=True)\n"
        "    time.sleep(0.5)\n"
        "    return original(path, *args, **kwargs)\n"
        "resolve.make_checkpoint = slow\n"
        "time.sleep(max(0.0, float(sys.argv[1]) - time.time()))\n"
        "checkpoint.validate_checkpoint(checkpoint.resolve_model('tiny'))\n"
    )
    start = str(time.time() + 2.0)
    racers = [
        subprocess.Popen([sys.executable, "-c", code, start], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outcomes = [racer.communicate(timeout=60) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0], outcomes
    assert "".join(out for out, _ in outcomes).split() == ["made"]
    assert {entry.name for entry in cache.iterdir()} == {"tiny-r1", ".tiny-r1.lock"}


def test_an_unwritable_cache_falls_back_to_the_temp_directory(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where the cache should be", encoding="utf-8")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        path = checkpoint.resolve_model("tiny")
    assert path == tmp_path / f"omnivoice-triton-{os.getuid()}" / "tiny-r1"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    checkpoint.validate_checkpoint(path)
    assert str(path.parent) in caplog.text
    assert checkpoint.resolve_model("tiny") == path


def test_a_strangers_temp_directory_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    cache.write_text("", encoding="utf-8")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    planted = tmp_path / f"omnivoice-triton-{os.getuid()}"
    planted.symlink_to(tiny.parent)
    assert not checkpoint.resolve_model("tiny").is_relative_to(planted)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OMNIVOICE_TRITON_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert checkpoint.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("OMNIVOICE_TRITON_CACHE")
    assert checkpoint.cache_dir() == tmp_path / "xdg" / "omnivoice-triton"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert checkpoint.cache_dir() == tmp_path / ".cache" / "omnivoice-triton"


def test_a_named_directory(cache: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint.resolve_model(copy) == checkpoint.resolve_model(str(copy)) == copy
    monkeypatch.setenv("HOME", str(copy.parent))
    assert checkpoint.resolve_model(f"~/{copy.name}") == copy
    monkeypatch.setenv("OMNIVOICE_TRITON_MODEL", str(copy))
    assert checkpoint.resolve_model() == copy
    assert checkpoint.resolve_model("tiny") == cache / "tiny-r1"
    monkeypatch.chdir(copy.parent)
    assert checkpoint.resolve_model(copy.name).resolve() == copy
    (copy / LM).unlink()
    for model in (None, copy, copy.name):
        with pytest.raises(CheckpointError, match=f"lacks {LM}"):
            checkpoint.resolve_model(model)
    monkeypatch.setenv("OMNIVOICE_TRITON_MODEL", "")
    assert checkpoint.resolve_model() == demo.packaged_demo()


def test_the_demo_voice_is_the_default(
    cache: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DATA", tmp_path)
    for named in (None, "demo"):
        with pytest.raises(CheckpointError, match="lacks the demo voice's files"):
            checkpoint.resolve_model(named)
    packaged = copy.rename(tmp_path / "demo")
    assert checkpoint.resolve_model() == checkpoint.resolve_model("demo") == packaged
    assert checkpoint.resolve_model("tiny") == cache / "tiny-r1"
    monkeypatch.setenv("OMNIVOICE_TRITON_MODEL", "tiny")
    assert checkpoint.resolve_model() == cache / "tiny-r1"
    monkeypatch.setenv("OMNIVOICE_TRITON_MODEL", "demo")
    monkeypatch.chdir(tmp_path)
    assert checkpoint.resolve_model() == packaged
    (packaged / LM).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {LM}"):  # No silent step back to random weights
        checkpoint.resolve_model()


@pytest.mark.parametrize(
    "model", ["", "/nowhere/model", "./model", "~/model", "~nobody-here/model", "a/b/c", "dir\\model", Path("a/b")]
)
def test_what_looks_like_a_path_is_never_sent_to_the_hub(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not exist.*make-checkpoint"):
        checkpoint.resolve_model(model)


def test_a_file_is_not_a_model(cache: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    with pytest.raises(CheckpointError, match="is a file"):
        checkpoint.resolve_model("config.json")
