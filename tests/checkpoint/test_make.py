"""What `make_checkpoint` writes, and what it refuses to write."""

from __future__ import annotations

import errno
import json
import lzma
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from omnivoice_triton import checkpoint
from omnivoice_triton.checkpoint import files, weights
from omnivoice_triton.speech import InputError
from tests.checkpoint.helpers import (
    DATA,
    fingerprint,
    load_json,
)


def test_the_layout_is_that_of_the_hub_repository(tiny: Path) -> None:
    assert set(fingerprint(tiny)) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "audio_tokenizer/config.json",
        "audio_tokenizer/preprocessor_config.json",
        "audio_tokenizer/model.safetensors",
    }
    assert sum(path.stat().st_size for path in tiny.rglob("*") if path.is_file()) < 10e6
    assert tiny.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(("model", "metadata"), [("", None), ("audio_tokenizer", {"format": "pt"})])
def test_the_file_is_what_the_safetensors_library_would_write(
    tiny: Path, model: str, metadata: dict[str, str] | None
) -> None:
    path = tiny / model / "model.safetensors"
    assert save(load_file(path), metadata=metadata) == path.read_bytes()


@pytest.mark.parametrize("length", range(1, 9))
def test_headers_of_any_length_are_aligned(tmp_path: Path, length: int) -> None:
    specs = {"x" * length: files.TensorSpec((3,)), "a": files.TensorSpec((2, 1))}
    weights.write_random(tmp_path / "w", specs, lambda name, spec: weights.Draw(0.0, 1.0), 0)
    assert save(load_file(tmp_path / "w")) == (tmp_path / "w").read_bytes()


def test_the_tiny_model_is_the_real_one_but_for_its_sizes() -> None:
    for name in ("config.json", "audio_tokenizer/config.json"):
        small, real = load_json(DATA / "tiny" / name), load_json(DATA / "full" / name)
        changed = set(_leaves(small).items()) ^ set(_leaves(real).items())
        assert {key.split(".")[-1] for key, _ in changed} <= {
            *("hidden_size", "intermediate_size", "num_hidden_layers", "max_window_layers", "layer_types", "head_dim"),
            *("num_attention_heads", "num_key_value_heads", "vocab_size", "bos_token_id", "eos_token_id"),
            *("pad_token_id", "encoder_hidden_size", "decoder_hidden_size", "codebook_dim", "conv_dim"),
            *("num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "classifier_proj_size"),
        }
        assert _leaves(small).keys() == _leaves(real).keys()
    same = ("tokenizer_config.json", "audio_tokenizer/preprocessor_config.json")
    assert all((DATA / "tiny" / name).read_bytes() == (DATA / "full" / name).read_bytes() for name in same)


def _leaves(section: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in section.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: json.dumps(value)}
    return found


def test_the_tiny_tokenizer_is_the_real_one_without_merges() -> None:
    real = json.loads(lzma.decompress((DATA / "tokenizer.json.xz").read_bytes()))
    small = load_json(DATA / "tiny" / "tokenizer.json")
    vocabulary = real["model"]["vocab"]
    assert small["model"].pop("vocab") == {token: index for token, index in vocabulary.items() if index < 256}
    assert small["model"].pop("merges") == []
    shift = len(vocabulary) - 256
    assert [token | {"id": token["id"] + shift} for token in small.pop("added_tokens")] == real.pop("added_tokens")
    del real["model"]["vocab"], real["model"]["merges"]
    assert small == real


def test_same_seed_same_bytes(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert fingerprint(checkpoint.make_checkpoint(tmp_path / "again", seed=7)) == fingerprint(tiny)
    other = fingerprint(checkpoint.make_checkpoint(tmp_path / "other", seed=8))
    changed = {name for name, digest in fingerprint(tiny).items() if other[name] != digest}
    assert changed == {"config.json", "model.safetensors", "audio_tokenizer/model.safetensors"}


def test_blocks_of_a_large_tensor_differ_and_do_not_depend_on_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_BLOCK", 1000)
    specs = {"a.weight": files.TensorSpec((70, 50)), "b.weight": files.TensorSpec((3, 5))}
    written = []
    for threads in (1, 4):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        path = tmp_path / f"{threads}.safetensors"
        weights.write_random(path, specs, lambda name, spec: weights.Draw(0.0, 1.0), 0, done=lambda count: None)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    values = load_file(tmp_path / "1.safetensors")["a.weight"].reshape(-1)
    assert len(np.unique(values)) > 3400
    assert not np.array_equal(values[:1000], values[1000:2000])


def test_the_recipe_number_covers_what_is_drawn(tmp_path: Path) -> None:
    """If this fails, the recipe has changed: raise `weights.RECIPE`, or caches keep the old tiny model."""
    path = checkpoint.make_checkpoint(tmp_path / "tiny", seed=0)
    totals = [
        sum(float(np.abs(value.astype(np.float64)).sum()) for value in load_file(path / model).values())
        for model in ("model.safetensors", "audio_tokenizer/model.safetensors")
    ]
    assert weights.RECIPE == 1
    np.testing.assert_allclose(totals, RECIPE_1_TOTALS, rtol=1e-6)


RECIPE_1_TOTALS = (459749.916, 247161.069)


def test_random_weights_avoid_the_known_traps(tiny: Path) -> None:
    codec = load_file(tiny / "audio_tokenizer/model.safetensors")
    for name, value in codec.items():
        if name.endswith(".embed"):
            assert value.std() > 0.9, name  # Upstream initialises them to zero: all codes would sound alike.
            np.testing.assert_array_equal(value, codec[f"{name}_avg"])
    alphas = np.concatenate([value.reshape(-1) for name, value in codec.items() if name.endswith(".alpha")])
    assert 0.15 < alphas.std() < 0.25
    assert alphas.min() >= 0.25
    lm = load_file(tiny / "model.safetensors")
    np.testing.assert_array_equal(lm["codebook_layer_offsets"], np.arange(8) * 1025)
    assert all(value.std() > 0.01 for name, value in lm.items() if value.ndim == 2), "a dead layer"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_language_model_can_be_stored_in_half(tiny: Path, tmp_path: Path, dtype: str) -> None:
    from safetensors.torch import load_file as load_torch

    path = checkpoint.make_checkpoint(tmp_path / dtype, seed=7, dtype=dtype)
    checkpoint.validate_checkpoint(path)
    assert load_json(path / "config.json")["dtype"] == load_json(path / "config.json")["llm_config"]["dtype"] == dtype
    half, single = load_torch(path / "model.safetensors"), load_torch(tiny / "model.safetensors")
    for name, value in single.items():
        wanted = value if value.dtype == torch.int64 else value.to(getattr(torch, dtype))
        torch.testing.assert_close(half[name], wanted, rtol=0, atol=0)
    codec = "audio_tokenizer/model.safetensors"
    assert (path / codec).read_bytes() == (tiny / codec).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": "huge"}, "'huge'"),
        ({"dtype": "int8"}, "'int8'"),
        ({"seed": -1}, "-1"),
        ({"seed": 1.5}, "1.5"),
        ({"seed": True}, "True"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        checkpoint.make_checkpoint(tmp_path / "new", **arguments)
    assert not list(tmp_path.iterdir())


def test_no_directory_given() -> None:
    with pytest.raises(InputError, match="no directory"):
        checkpoint.make_checkpoint("")


def test_a_filled_directory_is_kept_unless_forced(copy: Path) -> None:
    before = fingerprint(copy)
    with pytest.raises(InputError, match=r"not empty.*--force"):
        checkpoint.make_checkpoint(copy, seed=9)
    assert fingerprint(copy) == before
    (copy / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match=r"'thesis\.txt'"):
        checkpoint.make_checkpoint(copy, seed=9, force=True)
    (copy / "thesis.txt").unlink()
    assert fingerprint(copy) == before
    checkpoint.make_checkpoint(copy, seed=9, force=True)
    assert fingerprint(copy) != before
    assert [entry.name for entry in copy.parent.iterdir()] == [copy.name]


def test_an_empty_directory_and_a_link_to_one_are_filled(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    assert checkpoint.make_checkpoint(link) == real
    assert link.is_symlink()
    checkpoint.validate_checkpoint(link)


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    for target in (file, file / "below"):
        with pytest.raises(InputError, match=str(file)):
            checkpoint.make_checkpoint(target)
    assert file.read_text(encoding="utf-8") == "x"


def test_too_little_space_is_found_out_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=3_200_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"needs 3\.27 GB .* 3\.20 GB are free"):
        checkpoint.make_checkpoint(tmp_path / "deep" / "new", "full")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [False, True], ids=["new", "replacing"])
def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path, error: BaseException, old: bool) -> None:
    target = tmp_path / "model"
    if old:
        checkpoint.make_checkpoint(target)
    before = fingerprint(tmp_path)

    def fail(done: int, total: int) -> None:
        if done > total // 2:
            raise error

    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        checkpoint.make_checkpoint(target, seed=1, force=old, progress=fail)
    assert isinstance(error, KeyboardInterrupt) or "No space left" in str(caught.value)
    assert fingerprint(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == (["model"] if old else [])


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = checkpoint.make_checkpoint(tmp_path / "new", progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    written = sum((path / name).stat().st_size for name in files.LAYOUT if name.endswith(".safetensors"))
    assert calls[-1][1] == written
    assert written - 100_000 < calls[-1][0] <= written
