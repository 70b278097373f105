"""The garbage collector rests while large packages are imported, what nobody uses is put off, and only then."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from omnivoice_triton import imports
from omnivoice_triton.imports import collector_at_rest, late_imports


def test_it_rests_and_goes_on_even_after_an_error() -> None:
    assert gc.isenabled()
    seen = []

    def fail() -> None:
        with collector_at_rest():
            seen.append(gc.isenabled())
            raise ImportError("no torch")

    with pytest.raises(ImportError):
        fail()
    assert seen == [False]
    assert gc.isenabled()


def test_one_that_a_user_switched_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_at_rest():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_importing_the_runners_collects_nothing_in_full() -> None:
    """A full collection looks at everything that there is: dozens of them run without this."""
    code = (
        "import gc; full = []; gc.callbacks.append(lambda phase, info: full.append(info['generation'] == 2))\n"
        "from omnivoice_triton import create_runner\n"
        "assert gc.isenabled(); print(sum(full))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 0


def test_a_model_loads_without_one(tmp_path: Path) -> None:
    """Its tokenizer sets dozens off, each longer the more is imported already."""
    import torch

    from omnivoice_triton.checkpoint import make_checkpoint
    from omnivoice_triton.models.loading import import_upstream, load_upstream

    import_upstream("cpu")
    path = make_checkpoint(tmp_path / "tiny", "tiny", seed=0)
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.collect()
    gc.callbacks.append(note)
    try:
        load_upstream(path, "cpu", torch.float32)
        loading = len(seen)
        gc.collect()
    finally:
        gc.callbacks.remove(note)
    assert gc.isenabled()
    assert len(seen) == loading + 1, "the last one must be seen"
    assert loading < 4, "the moments before and after"


def in_a_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_upstream_is_imported_without_what_it_does_not_use() -> None:
    code = (
        "import sys; from omnivoice_triton.imports import quick_imports, LATE\n"
        "with quick_imports():\n    import omnivoice\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(tops & {'scipy', 'sklearn', 'click', 'rich'}), LATE.keys() & sys.modules)"
    )
    assert in_a_process(code).split() == ["[]", "set()"]


def test_what_was_put_off_works_when_it_is_called() -> None:
    """The names that transformers holds on to, and the modules themselves."""
    pytest.importorskip("sklearn")
    code = (
        "from omnivoice_triton.imports import quick_imports\n"
        "with quick_imports():\n    import omnivoice\n"
        "from transformers.generation import candidate_generator as c\n"
        "from transformers.loss import loss_for_object_detection as l\n"
        "import numpy as np\n"
        "print(l.linear_sum_assignment(np.eye(2))[1].tolist(), c.roc_curve([0, 1], [0.2, 0.7])[1].tolist())\n"
        "import scipy.optimize, sklearn.metrics\n"
        "print(scipy.optimize.minimize.__name__, type(sklearn.metrics).__name__, sklearn.metrics.roc_curve.__name__)"
    )
    assert in_a_process(code).splitlines() == ["[1, 0] [0.0, 1.0, 1.0]", "minimize module roc_curve"]


def test_the_command_line_of_httpx_still_starts() -> None:
    pytest.importorskip("click")
    code = (
        "import sys; from omnivoice_triton.imports import quick_imports\n"
        "with quick_imports():\n    import httpx\n"
        "assert 'click' not in sys.modules; sys.argv[1:] = ['--help']; httpx.main()"
    )
    assert "httpx <URL>" in in_a_process(code)


def test_another_name_is_the_real_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "LATE", {"json.tool": "main"})
    monkeypatch.delitem(sys.modules, "json.tool", raising=False)
    with late_imports():
        stand_in = sys.modules["json.tool"]
        with pytest.raises(AttributeError):
            getattr(stand_in, "__path__")  # noqa: B009
        late = stand_in.main
        assert stand_in.argparse is sys.modules["argparse"]
        assert sys.modules["json.tool"] is not stand_in
    assert late.__name__ == "main"
    assert sys.modules["json.tool"].main is not late


def test_what_is_there_or_nowhere_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "LATE", {"json": "loads", "no_such_package.part": "f"})
    before = sys.modules["json"]
    with late_imports():
        assert sys.modules["json"] is before
        assert "no_such_package.part" not in sys.modules
    assert sys.modules["json"] is before
