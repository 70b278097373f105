"""`bench speed` without a GPU: turns, budgets, cells that are left out, the split and the energy, on stand-ins."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omnivoice_triton.bench import nvml, speed, speed_cases, splits, turns
from omnivoice_triton.bench.speed_cases import Budget, cells
from omnivoice_triton.checkpoint import make_checkpoint
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError, NotEnoughMemory, Speech
from tests.bench.test_schema import faults


class Clock:
    """Seconds that pass only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """A runner whose call takes `seconds` (the first one `cold`) times the batch size."""

    def __init__(
        self, clock: Clock, seconds: float, cold: float | None = None, fails: Callable[[int], bool] = lambda n: False
    ):
        self.clock, self.seconds, self.cold, self.fails = clock, seconds, cold, fails
        self.calls: list[int] = []
        self.mode = SimpleNamespace(engine=False)

    def generate(self, seed: int, **keywords: Any) -> Any:
        text = keywords.get("text", "")
        batch = len(text) if isinstance(text, list) else 1
        if self.fails(batch):
            raise NotEnoughMemory("too large")
        self.calls.append(batch)
        seconds = batch * (self.cold if len(self.calls) == 1 and self.cold is not None else self.seconds)
        self.clock.now += seconds
        made = Speech(np.zeros(48_000, np.float32), 24_000, seconds, seed, "stub", peak_vram_gb=2.0)
        return [made] * batch if isinstance(text, list) else made


def two(clock: Clock) -> dict[str, Worker]:
    return {"base": Worker(clock, 1.0, 3.0), "turbo": Worker(clock, 0.1, 0.5)}


# --- cells


def test_cells_are_ordered_by_importance() -> None:
    names = [cell.name for cell in cells(True, [32, 1, 8])]
    assert len(names) == len(set(names)) == 8 * 3
    assert set(names[:8]) == set(speed_cases.cases(True))
    assert names[0] == "en 5 s"
    assert names[8:10] == ["en 5 s x 8", "en 5 s x 32"]
    assert all(name.endswith("x 8") for name in names[10:17])
    assert names[-1] == "en 30 s x 32"
    assert [cell.name for cell in cells(False, [1])] == ["en 5 s"]
    assert [cell.name for cell in cells(False, [8], ["en 15 s"])] == ["en 15 s x 8"]


def test_a_batch_is_the_same_text_as_often() -> None:
    found = {cell.name: cell for cell in cells(True, [1, 8])}
    single, many = found["clone 5 s"].request("voice"), found["clone 5 s x 8"].request("voice")
    assert many == {**single, "text": [single["text"]] * 8}
    assert single["voice"] == "voice"
    assert "voice" not in found["en 30 s"].request("voice")
    assert found["en 30 s"].request()["duration"] == 30.0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [(([0],), "at least 1"), (([],), "at least 1"), (([1], ["en 7 s"]), "no case is called 'en 7 s'")],
)
def test_cells_that_there_are_not(arguments: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        cells(True, *arguments)


# --- turns


def test_ratios_are_paired_and_figures_follow() -> None:
    clock = Clock()
    made = turns.take_turns(two(clock), {"text": ["a"] * 4}, runs=3, warm=1)
    row = made.rows["turbo"]
    assert row["ratio_to_base"] == pytest.approx(0.1)
    assert (row["median_ms"], row["cold_ms"], row["runs"]) == (pytest.approx(400), pytest.approx(2000), 3)
    assert row["audio_s"] == 8.0
    assert row["speed_x"] == pytest.approx(20)
    assert row["rtf"] * row["speed_x"] == pytest.approx(1)
    assert "call_peak_mb" not in row
    assert made.failed == {}


def test_modes_take_turns_and_drift_hits_all_alike() -> None:
    called: list[str] = []

    class Drifting(Worker):
        def generate(self, seed: int, **keywords: Any) -> Any:
            called.append(names[id(self)])
            self.seconds = share[names[id(self)]] * (1 + 2 * (seed % 3))  # threefold and fivefold in some rounds
            return super().generate(seed, **keywords)

    clock, share = Clock(), {"base": 1.0, "turbo": 0.1, "hybrid": 0.3}
    runners = {mode: Drifting(clock, 1.0) for mode in share}
    names = {id(runner): mode for mode, runner in runners.items()}
    rows = turns.take_turns(runners, {"text": "a"}, runs=3, warm=0).rows
    assert called[3:] == ["turbo", "hybrid", "base", "hybrid", "base", "turbo", "base", "turbo", "hybrid"]
    for mode, wanted in share.items():
        for key in ("ratio_to_base", "ratio_p5", "ratio_p95"):
            assert rows[mode][key] == pytest.approx(wanted)
    assert rows["turbo"]["ratio_to_base_p5"] == pytest.approx(0.3 / np.percentile([1, 3, 5], 5))


def test_working_memory_is_what_a_call_adds() -> None:
    made = turns.take_turns(two(Clock()), {"text": "a"}, runs=1, warm=0, allocated_mb=lambda: 1000.0)
    assert made.rows["base"]["call_peak_mb"] == 1048.0


def test_rounds_are_cut_first() -> None:
    clock = Clock()
    runners = two(clock)
    budget = Budget(100.0, clock)
    made = turns.take_turns(runners, {"text": "a"}, runs=50, warm=1, budget=budget, share_s=10.0)
    # 3.5 s of first calls, 1.1 s a round: one to warm up and four that count end at 9 s.
    assert made.rows["base"]["runs"] == 4
    assert clock.now < 10


def test_a_case_that_was_begun_gets_a_round() -> None:
    clock = Clock()
    made = turns.take_turns(two(clock), {"text": "a"}, runs=9, warm=1, budget=Budget(4.0, clock), share_s=0.1)
    assert made.rows["base"]["runs"] == 1
    assert clock.now == pytest.approx(3.5 + 1.1), "no unmeasured round"


def test_first_calls_that_take_all_the_time() -> None:
    clock = Clock()
    with pytest.raises(turns.OutOfTime, match="first calls took all the time"):
        turns.take_turns(two(clock), {"text": "a"}, runs=9, warm=1, budget=Budget(3.0, clock))


def test_a_mode_that_fails_leaves_the_others() -> None:
    clock = Clock()
    runners = {**two(clock), "hybrid": Worker(clock, 0.2, fails=lambda n: True)}
    made = turns.take_turns(runners, {"text": "a"}, runs=2, warm=0)
    assert set(made.rows) == {"base", "turbo"}
    assert made.failed == {"hybrid": "too large"}
    runners["base"].fails = lambda n: True
    with pytest.raises(NotEnoughMemory):
        turns.take_turns(runners, {"text": "a"}, runs=2, warm=0)
    with pytest.raises(InputError, match="ratios are to base"):
        turns.take_turns({"turbo": runners["turbo"]}, {"text": "a"}, runs=2, warm=0)
    with pytest.raises(InputError, match="nothing was measured"):
        turns.take_turns(two(clock), {"text": "a"}, runs=0, warm=1)


# --- the grid


def grid(
    seconds: float | None, clock: Clock, runners: dict[str, Worker], **options: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []

    def keep(more: list[dict[str, Any]], left: list[dict[str, Any]]) -> None:
        rows.extend(more)
        missing.extend(left)

    wanted = cells(True, [1, 8, 32])
    speed.measure_cells(runners, wanted, "fp16", 5, 1, Budget(seconds, clock), keep, **options)
    return rows, missing


def test_without_a_budget_everything_is_measured() -> None:
    clock = Clock()
    rows, missing = grid(None, clock, two(clock))
    assert len(rows) == 2 * 24
    assert missing == []
    assert {row["runs"] for row in rows} == {5, 10}
    assert {row["runs"] for row in rows if row["case"] == "en 5 s"} == {10}
    assert {row["batch"] for row in rows} == {1, 8, 32}


@pytest.mark.parametrize("seconds", [5.0, 60.0, 300.0, 900.0])
def test_a_budget_is_kept_and_nothing_left_out_in_silence(seconds: float) -> None:
    clock = Clock()
    rows, missing = grid(seconds, clock, two(clock))
    assert {row["case"] for row in rows} | {entry["case"] for entry in missing} == {
        cell.name for cell in cells(True, [1, 8, 32])
    }
    assert not {row["case"] for row in rows} & {entry["case"] for entry in missing}
    assert all(entry["reason"] for entry in missing)
    assert rows[0]["case"] == "en 5 s"
    # What can run over: the first calls of a cell and one round, of the largest batch that was begun.
    assert clock.now <= seconds + 2 * 1.1 * max(row["batch"] for row in rows) + 5


def test_more_time_measures_more() -> None:
    counts = []
    for seconds in (20.0, 200.0, 2000.0):
        clock = Clock()
        rows, _ = grid(seconds, clock, two(clock))
        counts.append((len(rows), sum(row["runs"] for row in rows)))
    assert counts == sorted(counts)
    assert counts[0][0] < counts[2][0] == 48


def test_a_mode_without_a_cell_is_listed() -> None:
    clock = Clock()
    runners = two(clock)
    runners["turbo"].fails = lambda batch: batch == 32
    rows, missing = grid(None, clock, runners)
    assert len(rows) == 48 - 8
    assert {(entry["mode"], entry["batch"], entry["reason"]) for entry in missing} == {("turbo", 32, "too large")}
    runners["base"].fails = lambda batch: batch == 32
    rows, missing = grid(None, clock, runners)
    assert len(rows) == 32
    assert all("mode" not in entry for entry in missing if entry["batch"] == 32)
    assert all(entry["failed"] for entry in missing), "not for want of time"
    clock = Clock()
    _, missing = grid(3.0, clock, two(clock))
    assert missing[0]["reason"] == "its first calls took all the time that was left"
    assert not any("failed" in entry for entry in missing)


def test_further_figures_are_taken_while_there_is_time() -> None:
    clock = Clock()

    def more(runner: Any, cell: Any, keywords: Any) -> dict[str, Any]:
        if cell.case == "clone 5 s":
            raise InputError("no split")
        return {"lm_ms": 1.0}

    rows, missing = grid(None, clock, two(clock), more=more)
    assert all(("lm_ms" in row) == (not row["case"].startswith("clone")) for row in rows)
    assert {entry["reason"] for entry in missing} == {"split and energy: no split"}
    clock = Clock()
    rows, missing = grid(5.0, clock, two(clock), more=more)
    assert "lm_ms" not in rows[0]
    assert any("no time was left for split" in entry["reason"] for entry in missing)


def test_rounds_leave_time_for_further_figures() -> None:
    clock = Clock()

    def more(runner: Any, cell: Any, keywords: Any) -> dict[str, Any]:
        clock.now += 10.0
        return {"lm_ms": 1.0}

    def of(seconds: float) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        budget = Budget(seconds, clock)
        speed.measure_cells(
            two(clock), cells(True, [1, 8]), "fp16", 9, 0, budget, lambda made, _: rows.extend(made), more
        )
        assert budget.left > -20
        return rows

    rows = of(900.0)
    assert len(rows) == 32
    assert all("lm_ms" in row for row in rows)
    assert {row["runs"] for row in rows if row["batch"] == 1} == {9, 18}
    assert all(row["runs"] > 1 for row in rows)


def test_the_journal_says_what_a_cut_off_run_did_not_reach(tmp_path: Path, tiny: Path) -> None:
    clock = Clock()
    path = tmp_path / "speed.json"
    wanted = cells(True, [1, 8])
    journal = speed.Journal(path, tiny, wanted, ["fp16", "bf16"], {"budget_s_per_dtype": 9.0})
    journal.taken["turbo", "fp16"] = {"peak_vram_mb": 2000.0}
    speed.measure_cells(two(clock), wanted[:2], "fp16", 2, 0, Budget(None, clock), journal.keep)
    document = json.loads(path.read_text())
    assert [(row["mode"], row["case"]) for row in document["results"]] == [
        (mode, case) for case in ("en 5 s", "ko short") for mode in ("base", "turbo")
    ]
    assert [row.get("peak_vram_mb") for row in document["results"]] == [None, 2000.0, None, None]
    assert len(document["not_measured"]) == 16 * 2 - 2
    assert document["not_measured"][0]["reason"] == "the run ended before it"
    assert {"rtf", "speed_x", "lm_ms", "joules_per_utterance"} <= set(document["definitions"])
    assert not faults(document)
    lines = "\n".join(speed.table(journal.rows, document["not_measured"]))
    assert "not measured: bf16 en 30 s x 8: the run ended before it" in lines
    del document["not_measured"][3]["reason"]
    assert faults(document)


def test_bad_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, match in (
        (["--batch", "0"], "at least 1"),
        (["--budget-s", "0"], "above 0"),
        (["--cases", "x"], "no case"),
    ):
        assert speed.main(arguments) == 2
        assert match in capsys.readouterr().err


# --- the split


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "tiny", seed=0)


@pytest.mark.parametrize("mode", ["base", "turbo"])
def test_split_of_real_models(tiny: Path, mode: str) -> None:
    keywords = {"text": ["Hello there."] * 2, "language": "English", "duration": 0.4, "num_step": 2}
    with BaseRunner(device="cpu", model_id=tiny, mode=mode) as runner:
        before = dict(vars(runner.model)), dict(vars(runner.model.audio_tokenizer))
        row = speed.extras(runner, cells(False, [2])[0], keywords, lambda: None, None)
        assert row["lm_ms"] > 0
        assert row["codec_ms"] > 0
        assert row["post_ms"] > 0
        named = row["lm_ms"] + row["codec_ms"] + row["post_ms"] + row["host_ms"]
        assert named == pytest.approx(row["split_total_ms"])
        assert row["steps_per_s"] == pytest.approx(32_000 / row["lm_ms"])
        assert (dict(vars(runner.model)), dict(vars(runner.model.audio_tokenizer))) == before
        made = speed.extras(runner, cells(False, [2])[0], keywords, lambda: None, iter(range(0, 90, 3)).__next__)
        assert made["joules_per_utterance"] == pytest.approx(3 / (2 * made["energy_calls"]))


class Upstream:
    """A model as upstream lays it out, whose parts take the seconds that are given."""

    class Codec:
        def __init__(self, clock: Clock) -> None:
            self.clock = clock

        def decode(self) -> None:
            self.clock.now += 0.02

    def __init__(self, clock: Clock) -> None:
        self.clock, self.audio_tokenizer = clock, self.Codec(clock)

    def _preprocess_all(self) -> None:
        self.clock.now += 0.1

    def _post_process_audio(self) -> None:
        self.clock.now += 0.003

    def _decode_and_post_process(self) -> None:
        self.audio_tokenizer.decode()
        self.clock.now += 0.5  # the copy to the host
        self._post_process_audio()

    def generate(self, seed: int) -> float:
        began = self.clock.now
        self._preprocess_all()
        self.clock.now += 4.0
        for _ in range(3):
            self._decode_and_post_process()
        return 1000 * (self.clock.now - began)


def test_split_of_a_scripted_model() -> None:
    clock = Clock()
    model = Upstream(clock)
    figures = splits.upstream_split(model.generate, model, 2, lambda: None, clock)
    assert figures == pytest.approx(
        {"lm_ms": 4000.0, "codec_ms": 60.0, "post_ms": 9.0, "host_ms": 1600.0, "split_total_ms": 5669.0}
    )
    with pytest.raises(InputError, match="did not run upstream's parts"):
        splits.upstream_split(lambda seed: 1.0, model, 1, lambda: None, clock)
    with pytest.raises(InputError, match="nothing was measured"):
        splits.upstream_split(model.generate, model, 0, lambda: None, clock)


# --- energy


class Nvml:
    """NVML as far as it is used, with a counter of millijoules."""

    def __init__(self, fails: str | None = None) -> None:
        self.fails, self.millijoules, self.asked = fails, 5000, b""

    def nvmlInit_v2(self) -> int:
        return int(self.fails == "init")

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: Any) -> int:
        self.asked = name
        return int(self.fails == "uuid")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return int(self.fails == "energy")


def test_energy_counter() -> None:
    library = Nvml()
    counter = nvml.energy_counter("abc", library)
    assert counter is not None
    assert (counter(), library.asked) == (5.0, b"GPU-abc")
    library.millijoules = 7500
    assert counter() == 7.5
    library.fails = "energy"
    with pytest.raises(OSError, match="stopped counting"):
        counter()
    for fails in ("init", "uuid", "energy"):
        assert nvml.energy_counter("abc", Nvml(fails)) is None
    assert nvml.energy_counter("", library) is None


def test_no_driver_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnothing-of-that-name.so")
    assert nvml.energy_counter("abc") is None


def test_joules_per_utterance() -> None:
    clock, joules = Clock(), [0.0]

    def call() -> None:
        clock.now += 0.4
        joules[0] += 200.0

    figures = nvml.joules_per_utterance(call, 8, lambda: joules[0], clock)
    assert figures == {"joules_per_utterance": 25.0, "energy_calls": 4, "mean_w": pytest.approx(500)}
    assert nvml.joules_per_utterance(call, 8, lambda: 3.0, clock) == {}, "a counter that stands still is no energy"


def test_energy_of_calls_that_are_made_anyway() -> None:
    clock, joules = Clock(), [0.0]

    def work(seconds: float = 2.0) -> None:
        clock.now += seconds
        joules[0] += 900.0

    figures = nvml.joules_meanwhile(work, 3, 8, lambda: joules[0], clock)
    assert figures == {"joules_per_utterance": 37.5, "energy_calls": 3, "mean_w": pytest.approx(450)}
    assert nvml.joules_meanwhile(lambda: work(1.0), 3, 8, lambda: joules[0], clock) == {}, "too short for the counter"
    assert nvml.joules_meanwhile(work, 3, 8, lambda: 3.0, clock) == {}


@pytest.mark.parametrize("mode", ["base", "turbo"])
def test_every_cell_can_be_asked_for(tiny: Path, mode: str) -> None:
    """Lists with one voice, one instruction, one language: as the real runners take them."""
    with BaseRunner(device="cpu", model_id=tiny, mode=mode) as runner:
        voice = runner.create_voice((np.random.default_rng(0).standard_normal(12_000) * 0.1, 24_000), "Words.")
        for cell in cells(True, [1, 2]):
            request = cell.request(voice) | {"num_step": 1}
            if "duration" in request:
                request["duration"] /= 10
            made = turns.speak(runner, 0, request)
            assert len(made) == cell.batch
