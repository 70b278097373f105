"""Samples on the tiny model: what is written, that a former run survives a failure, and that each check can fail."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.cli import main
from omnivoice_triton.config import MODES
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError
from omnivoice_triton.verify import sample_files, samples
from omnivoice_triton.verify.sample_sentences import DESIGN, REFERENCE_INSTRUCT, REFERENCES, SPOKEN

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "assets" / "audio_samples"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One language."""
    monkeypatch.setattr(samples, "SPOKEN", SPOKEN[:3])
    monkeypatch.setattr(samples, "REFERENCES", REFERENCES[:1])


def make(tiny: Path, out: Path, *flags: str) -> int:
    return main(["samples", "--out", str(out), "--model", str(tiny), "--device", "cpu", "--steps", "2", *flags])


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples") / "new" / "audio_samples"
    assert make(tiny, out, "--modes", "turbo", "--quiet") == 0
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    return document


def test_every_mode_says_everything(made: Path) -> None:
    document = read(made)
    entries = document["samples"]
    assert [entry["file"] for entry in entries] == [
        f"{mode}/{sentence.code}-{voice}.flac" for mode in ("base", "turbo") for voice, sentence in SPOKEN
    ]
    assert sample_files.faults(made) == []
    for entry in entries:
        audio, rate = soundfile.read(made / entry["file"])
        assert (rate, len(audio) / rate) == (24_000, pytest.approx(entry["audio_s"], abs=1e-3))
        assert np.abs(audio).max() > 0.01
        assert entry["time_ms"] > 0
        assert (entry["seed"], entry["steps"], entry["tokens_equal_to_base"]) == (7, 2, 1.0)
        assert entry["instruct"] == (DESIGN if entry["voice"] == "design" else None)
        of = f"reference/{entry['language']}.flac" if entry["voice"] == "clone" else None
        assert entry["reference"] == of
    assert len({entry["sha256"] for entry in entries[:9]}) == 9, "no two say the same"
    for base, turbo in zip(entries[:9], entries[9:], strict=True):
        theirs, ours = (soundfile.read(made / entry["file"])[0] for entry in (base, turbo))
        assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs), "equal tokens, another sound"
    assert [(e["file"], e["text"], e["instruct"]) for e in document["references"]] == [
        (f"reference/{sentence.code}.flac", sentence.text, REFERENCE_INSTRUCT) for sentence in REFERENCES
    ]


def test_each_voice_is_asked_for(tiny: Path, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What metadata says and what the model was told is the same."""
    generate, asked = BaseRunner.generate, list[tuple[Any, ...]]()

    def noted(self: BaseRunner, text: str, language: str, **given: Any) -> Any:
        cloned = given.get("voice")
        asked.append((self.mode.name, text, language, given.get("instruct"), cloned and cloned.ref_text, given["seed"]))
        return generate(self, text, language, **given)

    monkeypatch.setattr(BaseRunner, "generate", noted)
    assert make(tiny, tmp_path / "out", "--modes", "turbo", "--quiet", "--seed", "5") == 0
    of, reference = [sentence.text for _, sentence in SPOKEN[:3]], REFERENCES[0].text
    wanted = [("base", reference, "Korean", REFERENCE_INSTRUCT, None, 5)]
    for mode in ("base", "turbo"):
        wanted += [
            (mode, of[0], "Korean", None, None, 5),
            (mode, of[1], "Korean", None, reference, 5),
            (mode, of[2], "Korean", DESIGN, None, 5),
        ]
    assert asked[::2] == asked[1::2] == wanted


def test_what_the_run_was_is_told(made: Path, tiny: Path) -> None:
    document = read(made)
    assert (document["device"], document["dtype"], document["checkpoint"]) == ("cpu", "float32", "random-tiny")
    assert (document["model"], document["noise"]) == ("tiny", "torch")
    assert document["environment"]["versions"]["torch"]
    assert {"commit", "date_utc"} <= set(document["environment"])
    assert document["left_out"].keys() == set(MODES) - {"base", "turbo"}
    assert str(tiny.parent) not in json.dumps(document)
    assert not list(made.parent.glob(".*")), "scratch is left"


def test_modes_that_cannot_run_are_named(
    tiny: Path, tmp_path: Path, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tiny, tmp_path / "out") == 0
    out, err = capsys.readouterr()
    left = set(MODES) - {"base", "turbo"}
    assert all(f"omnivoice-triton: mode {mode} is left out: " in err for mode in left)
    document = read(tmp_path / "out")
    assert document["modes"] == ["base", "turbo"]
    assert document["left_out"].keys() == left
    assert all(document["left_out"].values())
    assert "turbo        3 samples" in out
    assert "100.0% of tokens equal to base's" in out


def test_other_noise_is_seen_in_the_agreement(
    tiny: Path, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the share would be a figure that can't be anything but 1."""
    monkeypatch.setattr(samples, "NOISE", "philox")
    assert make(tiny, tmp_path / "out", "--modes", "turbo", "--quiet") == 0
    shares = {entry["mode"]: [] for entry in read(tmp_path / "out")["samples"]}  # type: ignore[var-annotated]
    for entry in read(tmp_path / "out")["samples"]:
        shares[entry["mode"]].append(entry["tokens_equal_to_base"])
    assert shares["base"] == [1.0] * 3
    assert max(shares["turbo"]) < 0.9


def test_the_voice_given_is_the_one_cloned(tiny: Path, tmp_path: Path, short: None, made: Path) -> None:
    t = np.arange(2 * 44_100) / 44_100
    tone = 0.3 * np.sin(2 * np.pi * 150 * t) * (0.6 + 0.4 * np.sin(18 * t))
    soundfile.write(tmp_path / "me.wav", np.stack([tone, tone], 1), 44_100)
    given = ["--ref-audio", str(tmp_path / "me.wav"), "--ref-text", "A tone."]
    assert make(tiny, tmp_path / "out", "--modes", "base", "--format", "opus", "--quiet", *given) == 0
    document = read(tmp_path / "out")
    (reference,) = document["references"]
    assert (reference["file"], reference["given"], reference["text"]) == ("reference/given.flac", "me.wav", "A tone.")
    assert soundfile.info(tmp_path / "out" / "reference" / "given.flac").samplerate == 44_100
    assert [entry["reference"] for entry in document["samples"]] == [None, "reference/given.flac", None]
    assert all(entry["file"].endswith(".opus") for entry in document["samples"])
    assert make(tiny, tmp_path / "flac", "--modes", "base", "--quiet", *given) == 0
    mine, theirs = ({e["file"]: e["sha256"] for e in read(f)["samples"]} for f in (tmp_path / "flac", made))
    differs = {file for file, digest in mine.items() if digest != theirs[file]}
    assert differs == {"base/ko-clone.flac"}, "the reference changes the clone and nothing else"


def spoil_missing(folder: Path, document: dict[str, Any]) -> None:
    (folder / "turbo" / "en-auto.flac").unlink()


def spoil_content(folder: Path, document: dict[str, Any]) -> None:
    shutil.copy(folder / "turbo" / "ko-auto.flac", folder / "turbo" / "en-auto.flac")


def spoil_reference(folder: Path, document: dict[str, Any]) -> None:
    (folder / "reference" / "zh.flac").write_bytes(b"")


def spoil_stranger(folder: Path, document: dict[str, Any]) -> None:
    (folder / "turbo" / "more.flac").write_bytes(b"x")


def spoil_twice(folder: Path, document: dict[str, Any]) -> None:
    document["samples"].append(document["samples"][0])


def spoil_seed(folder: Path, document: dict[str, Any]) -> None:
    document["samples"][-1]["seed"] += 1


def spoil_text(folder: Path, document: dict[str, Any]) -> None:
    document["samples"][-1]["text"] += "!"


@pytest.mark.parametrize(
    ("spoil", "seen_as"),
    [
        (spoil_missing, "turbo/en-auto.flac: not there"),
        (spoil_content, "turbo/en-auto.flac: other content than when it was made"),
        (spoil_reference, "reference/zh.flac: other content than when it was made"),
        (spoil_stranger, "turbo/more.flac: not in metadata.json"),
        (spoil_twice, "base/ko-auto.flac: listed twice"),
        (spoil_seed, "turbo says other things than base"),
        (spoil_text, "turbo says other things than base"),
    ],
)
def test_a_spoilt_folder_is_seen(folder: Path, spoil: Callable[[Path, dict[str, Any]], None], seen_as: str) -> None:
    document = read(folder)
    spoil(folder, document)
    sample_files.write_metadata(folder, document)
    assert sample_files.faults(folder) == [seen_as]


def test_a_folder_without_samples_is_no_good_one(tmp_path: Path) -> None:
    sample_files.write_metadata(tmp_path, {"samples": []})
    assert sample_files.faults(tmp_path) == ["no samples"]
    for text in ("{", "[" * 100_000, "[]", '{"samples": [{"mode": "base"}]}', '{"samples": 3}'):
        (tmp_path / "metadata.json").write_text(text)
        with pytest.raises(InputError, match=r"metadata\.json"):
            sample_files.faults(tmp_path)


def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = BaseRunner.generate

    def muted(self: BaseRunner, *args: Any, **kwargs: Any) -> Any:
        speech = generate(self, *args, **kwargs)
        return dataclasses.replace(speech, audio=0 * speech.audio) if self.mode.name == "turbo" else speech

    monkeypatch.setattr(BaseRunner, "generate", muted)


def other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    generate, calls = BaseRunner.generate, iter(range(1000))
    monkeypatch.setattr(
        BaseRunner, "generate", lambda self, *a, seed, **k: generate(self, *a, seed=seed + next(calls), **k)
    )


def too_big(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_files, "MAX_BYTES", 300_000)


@pytest.mark.parametrize(
    ("plant", "seen_as"),
    [
        (silent, "mode turbo, '오늘 선생님은 재미있는 책을 읽었습니다.': silent"),
        (other_bits, "same seed, other bits"),
        (too_big, "MB, must stay under 0.3; --format opus takes less"),
    ],
)
def test_a_run_that_fails_leaves_the_former_one(
    tiny: Path,
    folder: Path,
    short: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    plant: Callable[[pytest.MonkeyPatch], None],
    seen_as: str,
) -> None:
    plant(monkeypatch)
    before = (folder / "metadata.json").read_bytes()
    assert make(tiny, folder, "--modes", "turbo") == 1
    assert seen_as in capsys.readouterr().err
    assert (folder / "metadata.json").read_bytes() == before
    monkeypatch.undo()
    assert sample_files.faults(folder) == []
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "scratch is left"


def test_a_run_that_ends_well_takes_the_place(tiny: Path, folder: Path, short: None) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    assert make(tiny, link, "--modes", "base", "--quiet", "--seed", "8") == 0
    document = read(folder)
    assert {entry["seed"] for entry in document["samples"]} == {8}
    assert document["modes"] == ["base"]
    assert not (folder / "turbo").exists()
    assert sample_files.faults(folder) == []
    assert sorted(path.name for path in folder.parent.iterdir()) == ["copy", "link"]


def test_a_folder_that_cannot_be_moved_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = sample_files.os.replace

    def failing(source: Path, target: Path) -> None:
        if str(source).endswith(".part"):
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(sample_files.os, "replace", failing)
    with pytest.raises(OSError, match="no"), sample_files.replacing(folder):
        pass
    monkeypatch.undo()
    assert sample_files.faults(folder) == []
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("name", ["thesis.txt", "turbo/notes.md", "turbo/mine.flac"])
def test_what_a_former_run_did_not_write_is_never_removed(
    tiny: Path, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text("mine")
    assert make(tiny, folder, "--modes", "base") == 2
    assert f"holds {name}, which is no sample of a former run" in capsys.readouterr().err
    assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--steps", "0"], "num_step must be a whole number of at least 1"),
        (["--modes", "warp"], "unknown mode 'warp'"),
        (["--modes", ","], "an empty list was given"),
        (["--modes", "faster"], "mode faster can't run here: it needs an NVIDIA GPU"),
        (["--ref-text", "A tone."], "belong together"),
        (["--ref-audio", "nowhere.wav", "--ref-text", "A tone."], "does not exist"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--format", "mp3"], "invalid choice: 'mp3'"),
    ],
)
def test_bad_flags(tiny: Path, tmp_path: Path, flags: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tiny, tmp_path / "out", *flags) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("x")
    assert make(tiny, tmp_path / "out") == 2
    assert "out is a file: name a folder" in capsys.readouterr().err


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNIVOICE_TRITON_MODEL", raising=False)
    assert samples.model_name(None) == "demo"
    assert samples.model_name("k2-fsa/OmniVoice") == "k2-fsa/OmniVoice"
    (tmp_path / "mine").mkdir()
    assert samples.model_name(str(tmp_path / "mine")) == "mine"
    monkeypatch.setenv("OMNIVOICE_TRITON_MODEL", str(tmp_path / "mine"))
    assert samples.model_name(None) == "mine"


@pytest.mark.skipif(not COMMITTED.is_dir(), reason="this checkout has no samples: make generate-samples")
def test_the_committed_samples_are_whole() -> None:
    assert sample_files.faults(COMMITTED) == []
    document = read(COMMITTED)
    assert set(document["modes"]) == set(MODES)
    assert not document["checkpoint"].startswith("random"), "noise is no sample"
    said = [(entry["voice"], entry["language"], entry["text"]) for entry in document["samples"]]
    assert set(said) == {(voice, sentence.code, sentence.text) for voice, sentence in SPOKEN}
