"""Naturalness in tier 3: scorers by name, UTMOS's package, and that a mode fails for being worse and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.cli import main
from omnivoice_triton.models import turbo
from omnivoice_triton.speech import InputError, OmniVoiceTritonError
from omnivoice_triton.verify import plugins, scorer, speech_tier
from omnivoice_triton.verify.outcome import Tier
from omnivoice_triton.verify.scorer import load_scorer, scores

ROOT = Path(__file__).resolve().parents[2]
RATE = 24_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without UTMOS, whatever this one has."""
    monkeypatch.setattr(scorer, "find_spec", lambda name: None)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model's weights count as real ones, so that what it says is judged."""
    monkeypatch.setattr(speech_tier, "is_random", lambda path: False)


class Critic:
    """Gives base's recordings 3 to 4 MOS, and those of the mode after it as much more as it is told."""

    name = "critic"

    def __init__(self, more: float) -> None:
        self.more, self.heard = more, list[int]()

    def score(self, recordings: Sequence[Any], rate: int) -> list[float]:
        assert rate == RATE
        assert all(one.ndim == 1 and one.dtype == np.float32 for one in recordings)
        self.heard.append(len(recordings))
        more = self.more if len(self.heard) > 1 else 0.0
        return [3 + number / len(recordings) + more for number in range(len(recordings))]


@pytest.fixture
def critics(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of scorers."""
    made = ModuleType("made_up_critics")
    made.worse = lambda device: Critic(-0.3)  # type: ignore[attr-defined]
    made.better = lambda device: Critic(0.3)  # type: ignore[attr-defined]
    made.mute = lambda device: object()  # type: ignore[attr-defined]
    made.broken = lambda device: {}["weights"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made.__name__


UTMOS_STANDS_IN = """
import torch

class UTMOSScoreTorch:
    def __init__(self, device):
        if {fails}:
            raise OSError("can't reach the hub\\nand a second line")
        self.device, self.heard = device, []

    def score(self, wave):
        self.heard.append((tuple(wave.shape), wave.dtype, str(wave.device)))
        return torch.tensor([3 + wave.abs().mean().item()])
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs something with the interface of utmos-pytorch 0.1.0."""

    def install(fails: bool = False) -> None:
        for name, content in (
            (f"{scorer.MODULE}/__init__.py", UTMOS_STANDS_IN.format(fails=fails)),
            (f"{scorer.MODULE}-0.1.0.dist-info/METADATA", f"Name: {scorer.PACKAGE}\nVersion: 0.1.0\n"),
        ):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text(content)
        monkeypatch.syspath_prepend(tmp_path)

    before = sys.modules.pop(scorer.MODULE, None)
    yield install
    sys.modules.pop(scorer.MODULE, None)
    if before is not None:
        sys.modules[scorer.MODULE] = before


def test_without_utmos_auto_is_none_and_utmos_an_error(absent: None) -> None:
    assert load_scorer("auto", "cpu") is None
    assert load_scorer("none", "cpu") is None
    assert scorer.reason_for_none().startswith("no naturalness scorer is installed")
    with pytest.raises(InputError, match="UTMOS is not installed: pip install utmos-pytorch"):
        load_scorer("utmos", "cpu")


def test_scorers_by_name(critics: str) -> None:
    found = load_scorer(f"{critics}:worse", "cpu")
    assert isinstance(found, Critic)
    for spec, message in (
        (f"{critics}:broken", "can't be loaded: 'weights'"),
        (f"{critics}:nothing", "can't be imported"),
        ("no_such_module:function", "can't be imported"),
        (f"{critics}:mute", r"made object: wanted a name and score\(recordings, rate\)"),
        (critics, "unknown scorer 'made_up_critics': give none, auto, utmos or module:function"),
    ):
        with pytest.raises(InputError, match=message):
            load_scorer(spec, "cpu")


def test_an_installed_scorer_is_taken_where_utmos_is_not(absent: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "ours"

        @staticmethod
        def load() -> Any:
            return lambda device: Critic(0)

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point] if group == scorer.GROUP else [])
    for spec in ("auto", "ours"):
        assert isinstance(load_scorer(spec, "cpu"), Critic)
    assert load_scorer("none", "cpu") is None
    assert scorer.reason_for_none() == "--scorer none"


@pytest.mark.parametrize("spec", ["auto", "utmos"])
def test_utmos_hears_each_alone_at_its_own_rate(package: Callable[..., None], spec: str) -> None:
    package()
    found = load_scorer(spec, "cpu")
    assert isinstance(found, scorer.Utmos)
    assert found.name == "UTMOS (utmos-pytorch 0.1.0)"
    recordings = [np.full(samples, level, np.float32) for samples, level in ((24_000, 0.1), (12_000, 0.5))]
    assert scores(found, recordings, RATE) == pytest.approx([3.1, 3.5], abs=0.01)
    assert found._model.heard == [((16_000,), torch.float32, "cpu"), ((8_000,), torch.float32, "cpu")]
    assert scorer.reason_for_none() == "--scorer none"


@pytest.mark.parametrize("spec", ["auto", "utmos"])
def test_utmos_without_its_weights_is_an_error_of_one_line(package: Callable[..., None], spec: str) -> None:
    package(fails=True)
    with pytest.raises(InputError, match=r"UTMOS can't be loaded .can't reach the hub.: .*--scorer none") as caught:
        load_scorer(spec, "cpu")
    assert "\n" not in str(caught.value)


WRONG: list[tuple[Callable[[list[float]], Any], str]] = [
    (lambda found: found[:-1], "gave 2 scores for 3 recordings"),
    (lambda found: [*found, 3.0], "gave 4 scores for 3 recordings"),
    (lambda found: [], "gave 0 scores for 3 recordings"),
    (lambda found: [found[0], float("nan"), found[2]], "gave nan for recording 2 of 3"),
    (lambda found: [*found[:2], float("inf")], "gave inf for recording 3 of 3"),
    (lambda found: [*found[:2], "good"], "failed: ValueError"),
    (lambda found: None, "failed: TypeError"),
]


class Wrong(Critic):
    """Says of one mode's recordings what nobody can use: of base's, or of the one after it."""

    def __init__(self, spoil: Callable[[list[float]], Any], at: int) -> None:
        super().__init__(0.0)
        self.spoil, self.at = spoil, at

    def score(self, recordings: Sequence[Any], rate: int) -> Any:
        found = super().score(recordings, rate)
        return self.spoil(found) if len(self.heard) == self.at else found


@pytest.mark.parametrize(("spoil", "message"), WRONG)
def test_one_finite_number_for_each(spoil: Callable[[list[float]], Any], message: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 2400)).astype(np.float32)
    assert scores(Critic(0), list(noise), RATE) == pytest.approx([3, 3 + 1 / 3, 3 + 2 / 3])
    with pytest.raises(OmniVoiceTritonError, match=f"scorer critic {message}"):
        scores(Wrong(spoil, at=1), list(noise), RATE)


def run(tiny: Path, **settings: Any) -> Tier:
    given: dict[str, Any] = {"sentences": 3, "steps": 4, "voices": ("auto",), "duration_s": 0.6, **settings}
    return speech_tier.run(tiny, ["base", "turbo"], device="cpu", **given)


@pytest.mark.parametrize(
    ("more", "passed", "verdict"), [(-0.3, False, "worse"), (-0.05, True, "within"), (0.3, True, "within")]
)
def test_a_mode_fails_for_sounding_worse_alone(
    tiny: Path, trained: None, more: float, passed: bool, verdict: str
) -> None:
    tier = run(tiny, scorer=Critic(more))
    assert tier.passed is passed, tier.failures
    figure = tier.rows[1]["comparisons"]["naturalness"]
    assert (figure["verdict"], figure["margin"], figure["utterances"]) == (verdict, 0.1, 3)
    assert figure["difference"] == pytest.approx(more)
    assert figure["base"] == pytest.approx(10 / 3)
    if not passed:
        assert tier.failures == ["turbo float32: naturalness: -0.3000 [-0.3000, -0.3000], margin 0.1"]
    assert "naturalness by critic" in tier.notes


def test_an_interval_that_reaches_the_margin_does_not_fail(tiny: Path, trained: None) -> None:
    class Unsure(Critic):
        def score(self, recordings: Sequence[Any], rate: int) -> list[float]:
            found = super().score(recordings, rate)
            return [found[0] - 1.5, *found[1:]] if len(self.heard) > 1 else found

    tier = run(tiny, scorer=Unsure(0.0))
    assert tier.passed, tier.failures
    figure = tier.rows[1]["comparisons"]["naturalness"]
    assert figure["difference"] == pytest.approx(-0.5)
    assert figure["verdict"] == "open"


def test_of_noise_it_is_shown_and_not_judged(tiny: Path) -> None:
    tier = run(tiny, scorer=Critic(-0.3))
    assert tier.passed, tier.failures
    assert tier.rows[1]["comparisons"]["naturalness"]["verdict"] == "not judged"
    assert any("naturalness by critic: of noise" in note for note in tier.notes)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize(("spoil", "message"), [WRONG[0], WRONG[3], WRONG[6]])
def test_a_scorer_that_fails_fails_the_tier(
    tiny: Path, trained: None, spoil: Callable[[list[float]], Any], message: str, at: int
) -> None:
    critic = Wrong(spoil, at)
    tier = run(tiny, scorer=critic)
    assert not tier.passed
    (problem,) = tier.failures
    assert problem.startswith(f"naturalness of {['base', 'turbo'][at - 1]}: scorer critic {message}")
    assert len(critic.heard) == at, "it is not asked again"
    assert "naturalness" not in tier.rows[1]["comparisons"]
    assert "duration" in tier.rows[1]["comparisons"], "the rest is measured all the same"


def test_what_cannot_be_heard_is_not_scored(tiny: Path, trained: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = turbo.TurboHandle._sound
    monkeypatch.setattr(turbo.TurboHandle, "_sound", lambda self, *a: [0 * audio for audio in sound(self, *a)])
    critic = Critic(0.0)
    tier = run(tiny, scorer=critic)
    assert critic.heard == [3]
    assert any("silent" in problem for problem in tier.failures)
    assert "naturalness" not in tier.rows[1]["comparisons"]


def verify(tiny: Path, folder: Path, spec: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report as JSON, report as a page."""
    flags = ["--tier", "3", "--modes", "base,turbo", "--steps", "2", "--sentences", "1", "--progress", "none"]
    files = ["--json", str(folder / "report.json"), "--html", str(folder / "report.html")]
    code = main(["verify", "--model", str(tiny), "--device", "cpu", *flags, "--scorer", spec, *files])
    return code, json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


@pytest.mark.parametrize(("which", "code"), [("worse", 1), ("better", 0)])
def test_the_report_has_it(
    tiny: Path, trained: None, critics: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str, code: int
) -> None:
    found, document, html = verify(tiny, tmp_path, f"{critics}:{which}")
    assert found == code
    (tier,) = document["results"]
    assert tier["passed"] is (code == 0)
    assert tier["rows"][1]["comparisons"]["naturalness"]["verdict"] == ("worse" if code else "within")
    assert tier["thresholds"]["margins"]["naturalness"] == 0.1
    sign = "-" if code else "+"
    for page in (capsys.readouterr().out, html):
        assert "naturalness by critic" in page
        assert "naturalness (MOS)" in " ".join(page.split())
        assert f"{sign}0.300" in page
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "bench" / "schema" / "results.schema.json").read_text())
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(document))


def test_a_report_without_a_scorer_says_so_in_one_line_and_shows_no_figure(
    tiny: Path, absent: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, html = verify(tiny, tmp_path, "auto")
    assert code == 0
    (tier,) = document["results"]
    (note,) = [note for note in tier["notes"] if "naturalness" in note]
    assert note.startswith("naturalness: not measured, no naturalness scorer is installed")
    assert all("naturalness" not in row["comparisons"] for row in tier["rows"])
    for page in (capsys.readouterr().out, html):
        assert "not measured, no naturalness scorer is installed" in " ".join(page.split())
        assert "naturalness (MOS)" not in page
