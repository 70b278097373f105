"""Fetch a checkpoint from the Hugging Face hub, through huggingface_hub and its cache.

The library's own settings hold: HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN, HF_ENDPOINT.
"""

from __future__ import annotations

from pathlib import Path

from omnivoice_triton.checkpoint import files
from omnivoice_triton.speech import CheckpointError, DownloadError

WANTED = (
    files.CONFIG,
    files.TOKENIZER,
    files.TOKENIZER_CONFIG,
    "model*.safetensors",
    files.INDEX,
    f"{files.CODEC_DIR}/*.json",
    f"{files.CODEC_DIR}/model*.safetensors",
)
"""Patterns of the files to fetch; the rest of a repository (samples, other formats) stays there."""

_OTHERWISE = "or pass a local directory (`omnivoice-triton make-checkpoint DIR` writes one with random weights)"


def download(model: str) -> Path:
    """The snapshot of a hub repository: from the cache if it is complete there, else over the network.

    A complete snapshot is used without asking the hub for a newer one, so that a cached model needs no network.

    Raises:
        CheckpointError: `model` can't be a repository's name.
        DownloadError: no such repository, no access, no network, no space; the message says what to do.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = list(WANTED)
    try:
        cached = Path(snapshot_download(model, allow_patterns=patterns, local_files_only=True))
        if not files.missing_files(cached):
            return cached
    except HFValidationError as error:
        raise CheckpointError(
            f"the model {model!r} is neither a directory nor a hub id such as k2-fsa/OmniVoice"
        ) from error
    except LocalEntryNotFoundError:
        pass
    if constants.HF_HUB_OFFLINE:
        raise DownloadError(
            f"the model {model} is not (completely) in the hub cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is "
            f"set: unset it to download, {_OTHERWISE}"
        )

    try:
        path = Path(snapshot_download(model, allow_patterns=patterns))
    except GatedRepoError as error:  # Before RepositoryNotFoundError, of which it is one.
        raise DownloadError(
            f"access to {model} is restricted: accept its terms on {constants.ENDPOINT}/{model}, then log in with "
            f"`hf auth login` or set HF_TOKEN, {_OTHERWISE}"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise DownloadError(
            f"there is no model {model} on {constants.ENDPOINT} (nor a directory of that name here), or it is private: "
            f"check the name, set HF_TOKEN, {_OTHERWISE}"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, RuntimeError, *_network_errors()) as error:
        raise DownloadError(
            f"could not download {model} from {constants.ENDPOINT} ({_cause(error)}): "
            f"check the network and the disk and try again, {_OTHERWISE}"
        ) from error
    return path


def _network_errors() -> tuple[type[Exception], ...]:
    # huggingface_hub talks through requests before 1.0 (whose errors are OSErrors), through httpx from then on.
    try:
        import httpx
    except ImportError:
        return ()
    return (httpx.HTTPError,)


def _cause(error: BaseException) -> str:
    """The first words of the innermost reason: the library's own message spans paragraphs."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
