"""Bytecode is counted, and written where Python looks for it, when that is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from omnivoice_triton import doctor
from omnivoice_triton.speech import InputError

COUNT = "from omnivoice_triton.bytecode import without_bytecode, write_bytecode\n"


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore", **environment}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=variables)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A search path with a module of its own."""
    (tmp_path / "fresh.py").write_text("VALUE = 7\n")
    return os.pathsep.join([str(tmp_path), *sys.path])


def test_modules_without_it_are_counted(path: str) -> None:
    done = python("-c", f"{COUNT}n = without_bytecode(); import fresh; print(without_bytecode() - n)", PYTHONPATH=path)
    assert done.stdout.split() == ["1"], done.stderr


def test_it_is_written_where_python_looks(path: str, tmp_path: Path) -> None:
    prefix = str(tmp_path / "kept")
    code = f"{COUNT}import fresh\nn = without_bytecode(); print(n - write_bytecode(), without_bytecode(), n > 0)"
    done = python("-c", code, PYTHONPATH=path, PYTHONPYCACHEPREFIX=prefix)
    assert done.stdout.split() == ["0", "0", "True"], done.stderr
    verbose = python("-v", "-c", "import fresh; assert fresh.VALUE == 7", PYTHONPATH=path, PYTHONPYCACHEPREFIX=prefix)
    assert any("fresh" in line and "matches" in line for line in verbose.stderr.splitlines()), "Python takes it"


def test_a_source_that_changed_meanwhile_or_is_gone_does_no_harm(path: str, tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text("")
    code = (
        f"{COUNT}import fresh, gone, pathlib\npathlib.Path(fresh.__file__).write_text('no python')\n"
        "pathlib.Path(gone.__file__).unlink()\nn = without_bytecode(); print(n - write_bytecode())"
    )
    done = python("-c", code, PYTHONPATH=path, PYTHONPYCACHEPREFIX=str(tmp_path / "kept"))
    assert done.stdout.split() == ["1"], done.stderr


def test_the_doctor_writes_it_once(tmp_path: Path) -> None:
    """Whole: after it, a start of mode turbo finds nothing to compile."""
    kept = {"PYTHONPYCACHEPREFIX": str(tmp_path / "kept")}
    first, second = (python("-m", "omnivoice_triton", "doctor", "--bytecode", **kept) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert int(first.stdout.split()[4]) > 1500
    assert second.stdout == "every module has its bytecode already\n"


def test_a_folder_that_cannot_be_written(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    code = f"{COUNT}import fresh\ntry:\n    write_bytecode()\nexcept OSError as error:\n    print(error.filename)"
    done = python("-c", code, PYTHONPATH=path, PYTHONPYCACHEPREFIX=str(tmp_path / "file"))
    assert done.stdout.startswith(str(tmp_path / "file")), done.stderr


def test_the_doctor_says_what_to_do_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr(doctor, "write_bytecode", refuse)
    with pytest.raises(InputError, match="somewhere can't be written: set PYTHONPYCACHEPREFIX to a folder that can"):
        doctor.keep_bytecode()
