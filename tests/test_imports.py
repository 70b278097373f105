"""The garbage collector rests while large packages are imported, and only then."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from omnivoice_triton.imports import collector_at_rest


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
