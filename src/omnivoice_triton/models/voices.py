"""Reference voices: through upstream's encoder, with its errors turned into advice, or from files, read once."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from omnivoice_triton.audio_files import check_reference, read_reference
from omnivoice_triton.models.parking import check_encoder
from omnivoice_triton.models.request import load_voice
from omnivoice_triton.speech import DownloadError, InputError

MAX_SAVED_VOICES = 64

_checked: dict[int, tuple[weakref.ref[Any], int, int]] = {}
"""Codes whose range was found good, by id, with their version and the range: to look at codes on a GPU is to wait."""


class SavedVoices:
    """Saved voices by path, read again when the file changes; the least recently used go first.

    Args:
        device: where their codes are kept.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._known: OrderedDict[Path, tuple[tuple[int, int, int], Any]] = OrderedDict()

    def load(self, path: str | Path) -> Any:
        """The prompt; see `load_voice` for errors."""
        path = Path(path)
        try:
            stat = path.stat()
        except OSError:
            return load_voice(path)  # which says what is wrong
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            voice = load_voice(path)
            codes: Any = getattr(voice, "ref_audio_tokens", None)
            if hasattr(codes, "to"):
                voice = replace(voice, ref_audio_tokens=codes.to(self._device))
            known = self._known[path] = (stamp, voice)
        self._known.move_to_end(path)
        while len(self._known) > MAX_SAVED_VOICES:
            self._known.popitem(last=False)
        return known[1]

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()


def encode_voice(
    model: Any, ref_audio: str | Path | tuple[Any, int], ref_text: str | None, preprocess_prompt: bool
) -> Any:
    """Upstream's `VoiceClonePrompt` of a recording.

    Raises:
        InputError: the recording can't be used.
        DownloadError: there is no transcript and the recogniser that would write one can't be loaded.
    """
    import torch

    check_encoder(model)
    if isinstance(ref_audio, str | Path):
        samples, rate = read_reference(ref_audio)
    else:
        samples, rate = _samples(ref_audio)
        check_reference(samples, rate)
    if ref_text is None and model._asr_pipe is None:
        try:
            model.load_asr_model()
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise DownloadError(
                f"no transcript was given and the recogniser {model._asr_model_name} can't be loaded ({reason}): "
                "give ref_text (--ref-text), what is said in the recording"
            ) from error
    # HuBERT draws from the global CPU RNG at every layer, for a layer drop that it only uses in training.
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        try:
            return model.create_voice_clone_prompt((samples, rate), ref_text, preprocess_prompt=preprocess_prompt)
        except ValueError as error:
            raise InputError(f"the reference audio can't be used: {' '.join(str(error).split())}") from error


def release_encoder_cache(model: Any) -> None:
    """Let go of the codec: an `lru_cache` on one of its methods (transformers 5) keeps each that has encoded alive."""
    cached: Any = getattr(type(model.audio_tokenizer), "_get_conv1d_layers", None)
    if hasattr(cached, "cache_clear"):
        cached.cache_clear()


def check_voice(model: Any, voice: Any) -> None:
    """Raise InputError unless `voice` is a prompt whose codes this model's codec could have made."""
    codes: Any = getattr(voice, "ref_audio_tokens", None)
    books, size = model.config.num_audio_codebook, model.config.audio_mask_id
    if not hasattr(codes, "shape") or not isinstance(getattr(voice, "ref_text", None), str):
        raise InputError(f"voice must be a prompt from create_voice() or the path of a saved one, not {voice!r}")
    if len(codes.shape) != 2 or codes.shape[0] != books or codes.shape[1] < 1 or codes.is_floating_point():
        raise InputError(
            f"this voice's codes are {tuple(codes.shape)}, the model wants ({books}, frames): encode it anew"
        )
    # Those made in inference mode, as create_voice() does, count no versions: nobody writes into them.
    key, version = id(codes), -1 if codes.is_inference() else codes._version
    known = _checked.get(key)
    if known is not None and known[0]() is codes and known[1:] == (version, size):
        return
    low, high = codes.aminmax()
    if int(low) < 0 or int(high) >= size:
        raise InputError(f"this voice's codes are not all from 0 to {size - 1}: encode it anew with this model")
    _checked[key] = (weakref.ref(codes, lambda _: _checked.pop(key, None)), version, size)


def _samples(reference: Any) -> tuple[Any, int]:
    try:
        samples, rate = reference
    except (TypeError, ValueError) as error:
        raise InputError("ref_audio must be a path or (samples, sample rate in Hz)") from error
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    try:
        samples = np.atleast_2d(np.asarray(samples))
        hertz = int(rate)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("ref_audio must be a path or (samples, sample rate in Hz)") from error
    if samples.dtype.kind not in "fiu" or samples.ndim != 2:
        raise InputError(
            f"reference samples must be numbers of shape (T,) or (channels, T), not {samples.dtype} {samples.shape}"
        )
    return _full_scale(samples), hertz


def _full_scale(samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Float32 with full scale at 1: integers are scaled by what their type holds, as files of them are."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    limits = np.iinfo(samples.dtype)
    middle = 0.0 if limits.min < 0 else (limits.max + 1) / 2
    scaled: npt.NDArray[np.float32] = ((samples.astype(np.float64) - middle) / (limits.max + 1 - middle)).astype(
        np.float32
    )
    return scaled


def missing_extra(error: ImportError, normalizing: bool) -> InputError:
    """Advice for a package that upstream wants for an optional feature."""
    what = "normalize_text needs" if normalizing else "this request needs"
    missing = error.name or " ".join(str(error).split()).partition(":")[0]
    return InputError(f"{what} a package that is not installed ({missing}): pip install 'omnivoice[tn]'")
