"""Fixtures for every test; without a GPU, Triton's interpreter stands in for the compiler."""

from __future__ import annotations

import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import torch

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    # Before triton is imported anywhere: its decorators read this once.
    os.environ.setdefault("TRITON_INTERPRET", "1")
    # Kernels are interpreted one by one: threads of torch only get in each other's way.
    torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels run: compiled on the GPU, or interpreted on the CPU."""
    return "cuda" if HAS_GPU else "cpu"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--results FILE`: what ran and how it ended, stamped, as JSON."""
    parser.addoption("--results", default=None, type=Path, help="write the outcome to this JSON file")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write `--results`."""
    path = session.config.getoption("--results")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if path is None or reporter is None:
        return
    from omnivoice_triton.evidence import write_json

    ended = reporter.stats
    # A skip is reported at setup; a pass once at each stage.
    counts = {"passed": sum(report.when == "call" for report in ended.get("passed", []))}
    counts |= {outcome: len(ended.get(outcome, [])) for outcome in ("failed", "skipped", "error")}
    files = Counter(report.nodeid.split("::")[0] for report in ended.get("passed", []) if report.when == "call")
    failed = [report.nodeid for report in ended.get("failed", []) + ended.get("error", [])]
    write_json(path, "tests", None, {**counts, "failures": failed, "results": dict(sorted(files.items()))})


def _has_browser() -> bool:
    from tools.browser import chromium

    return chromium() is not None and all(find_spec(name) for name in ("streamlit", "plotly"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of what isn't here (a GPU, a browser): listed as deselected, never as passed or skipped."""
    absent = [name for name, here in (("gpu", HAS_GPU), ("browser", _has_browser())) if not here]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in absent)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
