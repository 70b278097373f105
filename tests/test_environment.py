"""The stamp of the machine: complete, publishable, and there without a GPU."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import omnivoice_triton
from omnivoice_triton import environment


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_describes_this_machine() -> None:
    found = environment.describe()
    assert json.loads(json.dumps(found)) == found
    versions = found["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert versions["omnivoice-triton"] == omnivoice_triton.__version__
    assert all(versions[name] for name in ("transformers", "omnivoice", "numpy", "soundfile"))
    assert 1 <= found["cpu"]["usable"] <= found["cpu"]["cores"]
    assert found["memory_gib"] > 0.5
    age = datetime.now(timezone.utc) - datetime.strptime(found["date_utc"] + "+0000", "%Y-%m-%dT%H:%M:%SZ%z")
    assert abs(age.total_seconds()) < 60
    assert len(found["gpus"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_holds_nothing_private() -> None:
    private = {str(Path.home()), str(Path(omnivoice_triton.__file__).parents[2]), platform.node()} - {"", "/"}
    for text in strings(environment.describe()):
        assert not text.startswith("/"), text
        assert not [word for word in private if word in text], text


@pytest.fixture(autouse=True)
def no_stated_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNIVOICE_TRITON_COMMIT", raising=False)


def test_a_copy_without_history_can_state_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIVOICE_TRITON_COMMIT", "abc123\n")
    assert environment.git_state() == ("abc123", None)


def test_commit_is_that_of_the_checkout() -> None:
    root = Path(omnivoice_triton.__file__).parents[2]
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0 or not (root / ".git").exists():  # a copy without its history
        assert environment.git_state() == (None, None)
        return
    commit, dirty = environment.git_state()
    assert commit == head.stdout.strip()
    assert isinstance(dirty, bool)


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_dirty_means_the_sources_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "omnivoice_triton"
    package.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("", encoding="utf-8")
    (package / "environment.py").write_text("", encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert environment.git_state()[1] is False
    (tmp_path / "result.json").write_text("{}", encoding="utf-8")
    assert environment.git_state()[1] is False
    (package / "new.py").write_text("", encoding="utf-8")
    assert environment.git_state()[1] is True


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Somebody else's repository, with our package in a virtual environment inside it.
    package = tmp_path / ".venv" / "site-packages" / "omnivoice_triton"
    package.mkdir(parents=True)
    git(tmp_path, "init", "-q")
    (tmp_path / "pyproject.toml").write_text("", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "theirs")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert environment.git_state() == (None, None)


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = environment.describe()
    assert found["gpus"] == []
    assert found["versions"]["cuda"] is None


def test_missing_package_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_VERSIONS", ("no-such-package-here",))
    assert environment.versions()["no-such-package-here"] is None


SMI = """#!{python}
import sys
assert sys.argv[1:3] == ["-i", "GPU-1234"], sys.argv
assert "clocks.sm" in sys.argv[3]
print("570.10, 1410, 2619, 1980, 2619, {power}, 41")
"""


def fake_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, power: str = "700.00") -> None:
    script = folder / "nvidia-smi"
    script.write_text(SMI.format(python=sys.executable, power=power), encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_reads_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(tmp_path, monkeypatch)
    properties = SimpleNamespace(name="NVIDIA X", major=9, minor=0, multi_processor_count=132, uuid="1234")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (60 * 2**30, 80 * 2**30))
    (gpu,) = environment.gpus()
    assert gpu == {
        "name": "NVIDIA X",
        "capability": [9, 0],
        "multiprocessors": 132,
        "memory_gib": 80.0,
        "free_gib": 60.0,
        "driver": "570.10",
        "sm_mhz": 1410.0,
        "memory_mhz": 2619.0,
        "max_sm_mhz": 1980.0,
        "max_memory_mhz": 2619.0,
        "power_limit_w": 700.0,
        "temperature_c": 41.0,
    }


def test_what_the_driver_does_not_tell_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(tmp_path, monkeypatch, power="[N/A]")
    assert environment.driver_state("1234")["power_limit_w"] is None
    assert environment.driver_state("1234")["driver"] == "570.10"
    assert set(environment.driver_state("other-gpu").values()) == {None}  # the command fails
    assert set(environment.driver_state("").values()) == {None}
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert set(environment.driver_state("1234").values()) == {None}
