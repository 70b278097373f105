"""Models from the hub: the cache first, and each way in which a download fails."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from omnivoice_triton import checkpoint
from omnivoice_triton.checkpoint import hub
from omnivoice_triton.speech import CheckpointError, DownloadError
from tests.checkpoint.helpers import (
    CODEC,
    LM,
    UP,
    edit_tensors,
)


class FakeHub:
    """Stands for snapshot_download: what the cache and the network answer, and what was asked."""

    def __init__(self) -> None:
        self.cached: Path | Exception = hub_errors.LocalEntryNotFoundError("not in the cache")
        self.online: Path | Exception = AssertionError("no network in this test")
        self.asked: list[bool] = []

    def __call__(self, repository: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert allow_patterns == list(hub.WANTED)
        self.asked.append(local_files_only)
        answer = self.cached if local_files_only else self.online
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


@pytest.fixture
def fake_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return fake


def _response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://hub.invalid/api/models/k2-fsa/OmniVoice"))


def _no_network() -> Exception:
    error = hub_errors.LocalEntryNotFoundError("An error happened.\nPlease check your connection and try again.")
    error.__cause__ = httpx.ConnectError("[Errno -2] Name or service not known")
    return error


def test_a_cached_model_needs_no_network(fake_hub: FakeHub, tiny: Path) -> None:
    fake_hub.cached = tiny
    assert checkpoint.resolve_model("k2-fsa/OmniVoice") == tiny
    assert fake_hub.asked == [True]


def test_a_half_cached_model_is_completed(fake_hub: FakeHub, copy: Path, tiny: Path) -> None:
    (copy / CODEC).unlink()
    fake_hub.cached, fake_hub.online = copy, tiny
    assert checkpoint.resolve_model("k2-fsa/OmniVoice") == tiny
    assert fake_hub.asked == [True, False]


def test_what_comes_from_the_hub_is_checked(fake_hub: FakeHub, copy: Path) -> None:
    edit_tensors(copy / LM, lambda t: t.pop(UP))
    fake_hub.online = copy
    with pytest.raises(CheckpointError, match=f"lacks {UP}"):
        checkpoint.resolve_model("someone/fine-tune")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_no_network(), "ConnectError: [Errno -2] Name or service not known"),
        (httpx.ReadTimeout("timed out"), "ReadTimeout: timed out"),
        (hub_errors.RepositoryNotFoundError("404", response=_response(404)), "there is no model k2-fsa/OmniVoice"),
        (hub_errors.GatedRepoError("403", response=_response(403)), "accept its terms"),
        (hub_errors.RevisionNotFoundError("404", response=_response(404)), "there is no model"),
        (hub_errors.HfHubHTTPError("503 Server Error", response=_response(503)), "503 Server Error"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (RuntimeError("Data processing error: CAS service error"), "CAS service error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_hub_errors_say_what_to_do(fake_hub: FakeHub, error: Exception, words: str) -> None:
    fake_hub.online = error
    with pytest.raises(DownloadError) as caught:
        checkpoint.resolve_model("k2-fsa/OmniVoice")
    message = str(caught.value)
    assert "\n" not in message
    for part in (words, "k2-fsa/OmniVoice", "local directory", "omnivoice-triton make-checkpoint"):
        assert part in message
    assert caught.value.__cause__ is error
    assert fake_hub.asked == [True, False]


@pytest.mark.parametrize("partial", [False, True])
def test_offline(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, copy: Path, partial: bool) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    if partial:
        (copy / CODEC).unlink()
        fake_hub.cached = copy
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE is set.*make-checkpoint"):
        checkpoint.resolve_model("k2-fsa/OmniVoice")
    assert fake_hub.asked == [True]


def test_a_name_that_no_repository_can_have(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # The real library checks the name before anything else.
    with pytest.raises(CheckpointError, match="neither a directory nor a hub id"):
        checkpoint.resolve_model("not a name!")


def test_the_real_library_reads_its_own_cache(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub itself, offline, on a cache laid out as it does."""
    repository = tmp_path / "models--k2-fsa--OmniVoice"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        checkpoint.resolve_model("k2-fsa/OmniVoice")
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(tiny, snapshot)
    assert checkpoint.resolve_model("k2-fsa/OmniVoice") == snapshot
